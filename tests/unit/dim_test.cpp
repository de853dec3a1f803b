#include "ir/dim.h"

#include <climits>

#include <gtest/gtest.h>

namespace onnx2nn::ir {
namespace {

const Dim kN = Dim::symbol("N");
const Dim kM = Dim::symbol("M");

TEST(Dim, NumbersAndSymbols) {
  EXPECT_TRUE(Dim(3).is_const());
  EXPECT_EQ(Dim(3).value(), 3);
  EXPECT_EQ(Dim(3).constant(), 3);
  EXPECT_FALSE(kN.is_const());
  EXPECT_TRUE(kN.known());
  EXPECT_EQ(kN.symbol_name(), "N");
  EXPECT_EQ((kN * 2).symbol_name(), std::nullopt);
  EXPECT_EQ((kN + 1).symbol_name(), std::nullopt);
  EXPECT_EQ(Dim(3).symbol_name(), std::nullopt);
  EXPECT_FALSE(Dim().known());
  EXPECT_EQ(Dim().str(), "?");
}

TEST(Dim, OneFormHoweverItWasComputed) {
  EXPECT_EQ(kN * 2 + 1, Dim(1) + kN + kN);
  EXPECT_EQ((kN + kM) * (kN - kM), kN * kN - kM * kM);
  EXPECT_EQ(kN * kM, kM * kN);
  EXPECT_EQ((kN + 3) * 2 - 6, kN * 2);
  EXPECT_EQ(kN - kN, Dim(0));
  EXPECT_TRUE((kN - kN).is_const());
  EXPECT_EQ(kN * 0, Dim(0));
  EXPECT_EQ((kN * 2 + 1).str(), "2*N+1");
  EXPECT_EQ((Dim(5) - kN).str(), "-N+5");
  EXPECT_EQ((kN * kM * 3 - 2).str(), "3*M*N-2");
}

TEST(Dim, EqualOnlyWhereProvablySo) {
  EXPECT_FALSE(Dim() == Dim());
  EXPECT_FALSE(Dim() == Dim(1));
  EXPECT_FALSE(kN == kM);
  EXPECT_FALSE(kN == kN + 1);
  EXPECT_FALSE(kN * 2 == kN);
  EXPECT_EQ(Dim::symbol("N"), kN);
}

TEST(Dim, UnknownStaysUnknown) {
  const Dim u;
  for (const Dim& d : {u + 1, Dim(1) - u, u * 2, u * 0, Dim::floor_div(u, 2), Dim::floor_div(4, u),
                       Dim::ceil_div(u, 2), Dim::mod(u, 2), Dim::max(u, 1), Dim::min(1, u)})
    EXPECT_FALSE(d.known());
}

TEST(Dim, DivisionOfNumbersRoundsDown) {
  EXPECT_EQ(Dim::floor_div(7, 2), Dim(3));
  EXPECT_EQ(Dim::floor_div(-7, 2), Dim(-4));
  EXPECT_EQ(Dim::floor_div(7, -2), Dim(-4));
  EXPECT_EQ(Dim::floor_div(-7, -2), Dim(3));
  EXPECT_EQ(Dim::ceil_div(7, 2), Dim(4));
  EXPECT_EQ(Dim::ceil_div(8, 2), Dim(4));
  EXPECT_EQ(Dim::mod(7, 4), Dim(3));
  EXPECT_EQ(Dim::mod(-7, 4), Dim(1));
  EXPECT_FALSE(Dim::floor_div(7, 0).known());
  EXPECT_FALSE(Dim::mod(7, 0).known());
}

TEST(Dim, DivisionThatComesOut) {
  EXPECT_EQ(Dim::floor_div(kN * 6, 3), kN * 2);
  EXPECT_EQ(Dim::floor_div(kN * 6 + 7, 3), kN * 2 + 2);
  EXPECT_EQ(Dim::floor_div(kN * kM, kN), kM);
  EXPECT_EQ(Dim::floor_div(kN * kM * 8, kN * 4), kM * 2);
  EXPECT_EQ(Dim::floor_div(kN + 1, kN + 1), Dim(1));
  EXPECT_EQ(Dim::floor_div(kN, 1), kN);
  EXPECT_EQ(Dim::mod(kN * 4, 4), Dim(0));
  EXPECT_EQ(Dim::mod(kN * 4 + 6, 4), Dim(2));
}

TEST(Dim, WhatDoesNotComeOutIsAnAtom) {
  const Dim half = Dim::floor_div(kN, 2);
  EXPECT_EQ(half, Dim::floor_div(kN, 2));
  EXPECT_FALSE(half == kN);
  EXPECT_EQ(half - half, Dim(0));
  EXPECT_EQ(Dim::floor_div(kN + 4, 2), Dim::floor_div(kN + 4, 2));
  // The part that divides comes out, the rest stays inside.
  EXPECT_EQ(Dim::floor_div(kM * 2 + kN, 2), kM + half);
  EXPECT_EQ(Dim::mod(kN, 2), Dim::mod(kN, 2));
  EXPECT_FALSE(Dim::mod(kN, 2) == Dim(0));
}

TEST(Dim, GreaterAndLesser) {
  EXPECT_EQ(Dim::max(3, 5), Dim(5));
  EXPECT_EQ(Dim::min(3, 5), Dim(3));
  EXPECT_EQ(Dim::max(kN, kN + 1), kN + 1);
  EXPECT_EQ(Dim::min(kN, kN - 1), kN - 1);
  EXPECT_EQ(Dim::max(kN, kN), kN);
  EXPECT_FALSE(Dim::max(kN, kM) == kN);
  EXPECT_EQ(Dim::max(kN, 1), Dim::max(kN, 1));
}

TEST(Dim, WhatIsNeverNegative) {
  const Dim conv = Dim::floor_div(kN - 1, 4) + 1;  // of a convolution with stride 4
  for (const Dim& d : {kN, kN * kM + 1, conv, Dim::floor_div(conv - 1, 2) + 1,
                       Dim::mod(Dim(0) - kN, 4), Dim(3) - Dim::mod(kN, 4), Dim::max(kN - kM, 0),
                       Dim::min(kN, 7), kN + Dim::mod(kM - kN, 3)})
    EXPECT_TRUE(d.never_negative()) << d.str();
  for (const Dim& d : {kN - 1, kN - kM, Dim::floor_div(kN - 1, 4), Dim(2) - Dim::mod(kN, 4),
                       Dim::mod(kN, kM - 1), Dim::min(kN, -1), (kN - 1) * (kM - 1), Dim()})
    EXPECT_FALSE(d.never_negative()) << d.str();
}

// Dimensions come from files that nobody should trust.
TEST(Dim, OverflowIsUnknown) {
  EXPECT_FALSE((Dim(LLONG_MAX) + 1).known());
  EXPECT_FALSE((Dim(LLONG_MAX) * 2).known());
  EXPECT_FALSE((Dim(LLONG_MIN) - 1).known());
  EXPECT_FALSE((Dim(LLONG_MIN) * -1).known());
  EXPECT_FALSE((kN * LLONG_MAX + kN).known());
  EXPECT_FALSE((kN * LLONG_MAX * 2).known());
  (void)Dim::floor_div(LLONG_MIN, -1);
  (void)Dim::floor_div(kN * LLONG_MIN, -1);
  (void)Dim::floor_div(kN * LLONG_MIN, kN * -1);
  (void)Dim::floor_div(kN + LLONG_MIN, 3);
  (void)Dim::mod(LLONG_MIN, -1);
}

TEST(Dim, ExpressionsDoNotGrowWithoutBound) {
  Dim d = kN;
  for (int i = 0; i < 200; ++i)
    d = Dim::floor_div(d + 1, 2) + Dim::symbol("s" + std::to_string(i)) * d;
  EXPECT_LT(d.str().size(), 100000U);
  for (int i = 0; i < 200; ++i) d = Dim::max(d, Dim::symbol("t" + std::to_string(i)));
  EXPECT_FALSE(d.known());
}

TEST(Dim, ProductsOfManyFactorsAreUnknown) {
  Dim d = Dim::symbol("n");
  for (int i = 0; i < 4; ++i) d = d * d;
  EXPECT_EQ(d.terms()[0].factors.size(), 16U);
  EXPECT_EQ(d.weight(), 18U);
  EXPECT_FALSE((d * Dim::symbol("m")).known());
  EXPECT_FALSE((d * d).known());
}

}  // namespace
}  // namespace onnx2nn::ir
