#include "support/budget.h"

#include <gtest/gtest.h>

#include <string>

#include "support/error.h"

namespace onnx2nn {
namespace {

TEST(Budget, GrowsWithTheFileAndItsNodes) {
  Budget small(0);
  Budget large(1000);
  EXPECT_EQ(large.left(Resource::Bytes) - small.left(Resource::Bytes), 64'000U);
  EXPECT_EQ(large.left(Resource::Nodes), small.left(Resource::Nodes));
  const std::uint64_t before = small.left(Resource::Nodes);
  small.add_listed_nodes(10);
  EXPECT_EQ(small.left(Resource::Nodes), before + 160);
}

TEST(Budget, NamesWhoAsksForTooMuch) {
  Budget budget(0);
  budget.charge(Resource::Nodes, budget.left(Resource::Nodes), "a");
  try {
    budget.charge(Resource::Nodes, 1, "the function f");
    FAIL() << "there was room";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "too-large");
    EXPECT_NE(e.message().find("the function f"), std::string::npos);
    EXPECT_FALSE(e.hint().empty());
  }
}

TEST(Budget, TakesAllOrNothingAndSpendsWhatThereIs) {
  Budget budget(0);
  const std::uint64_t all = budget.left(Resource::Folded);
  EXPECT_FALSE(budget.take(Resource::Folded, all + 1));
  EXPECT_EQ(budget.left(Resource::Folded), all);
  EXPECT_TRUE(budget.take(Resource::Folded, all - 1));
  budget.spend(Resource::Folded, 5);
  EXPECT_EQ(budget.left(Resource::Folded), 0U);
  budget.restart(Resource::Folded);
  EXPECT_EQ(budget.left(Resource::Folded), all);
}

TEST(Budget, LimitsDoNotWrap) {
  Budget budget(~std::uint64_t{0});
  budget.add_file(~std::uint64_t{0});
  EXPECT_EQ(budget.left(Resource::Bytes), ~std::uint64_t{0});
  EXPECT_FALSE(budget.take(Resource::Nodes, ~std::uint64_t{0}));
}

TEST(Diagnostics, OfVeryManyTheFirstAreKeptAndTheOthersCounted) {
  Diagnostics all;
  for (int i = 0; i < 1500; ++i) all.add(Severity::Warning, "w", std::string(10'000, 'x'));
  EXPECT_FALSE(all.has_errors());
  all.add(Severity::Error, "e", "wrong");
  EXPECT_TRUE(all.has_errors());
  ASSERT_EQ(all.list().size(), 1001U);
  EXPECT_EQ(all.list().back().message, "501 more are not listed");
  EXPECT_LT(all.list().front().message.size(), 5000U);
}

}  // namespace
}  // namespace onnx2nn
