// How long statements are broken, by ruff's rules.
#include "emit/layout.h"

#include <gtest/gtest.h>

namespace onnx2nn::emit {
namespace {

const std::string kLong(30, 'a');
const std::string kOther(30, 'b');

TEST(Layout, WhatFitsStaysOnALine) {
  EXPECT_EQ(statement_text(4, "y = ", infix(atom("a"), "+", atom("b"), 50), ""), "    y = a + b\n");
}

TEST(Layout, ArgumentsGoOnALineOfTheirOwnOrEachOnOne) {
  const Text short_one = call("torch.nn.functional." + kLong, {atom(kOther), atom("c")});
  EXPECT_EQ(statement_text(0, "y = ", short_one, ""),
            "y = torch.nn.functional." + kLong + "(\n    " + kOther + ", c\n)\n");
  const Text long_one = call("f", {atom(kLong), atom(kOther), atom(kLong)});
  EXPECT_EQ(statement_text(0, "y = ", long_one, ""),
            "y = f(\n    " + kLong + ",\n    " + kOther + ",\n    " + kLong + ",\n)\n");
}

TEST(Layout, AChainBreaksBeforeItsOperators) {
  Text sum = infix(infix(atom(kLong), "+", atom(kOther), 50), "-", atom(kLong), 50);
  EXPECT_EQ(sum.items.size(), 3U);
  EXPECT_EQ(statement_text(0, "y = ", sum, ""),
            "y = (\n    " + kLong + "\n    + " + kOther + "\n    - " + kLong + "\n)\n");
  // In brackets there is no need of parentheses.
  EXPECT_EQ(statement_text(0, "y = ", call("f", {sum, atom("c")}), ""),
            "y = f(\n    " + kLong + "\n    + " + kOther + "\n    - " + kLong + ",\n    c,\n)\n");
}

TEST(Layout, OneOperatorBeforeACallLeavesTheBreakToTheCall) {
  const Text sum = infix(atom("x"), "+", call("f", {atom(kLong), atom(kOther), atom(kLong)}), 50);
  EXPECT_EQ(statement_text(0, "y = ", sum, ""),
            "y = x + f(\n    " + kLong + ",\n    " + kOther + ",\n    " + kLong + ",\n)\n");
}

TEST(Layout, ASubscriptAfterACallIsNotBroken) {
  const Text first = subscript(call("f", {atom(kLong), atom(kOther), atom(kLong)}), {atom("0")});
  EXPECT_EQ(statement_text(0, "y = ", first, ""),
            "y = f(\n    " + kLong + ",\n    " + kOther + ",\n    " + kLong + ",\n)[0]\n");
}

TEST(Layout, OnlyASubscriptOfSeveralItemsHasCommas) {
  const Text several = subscript(atom("x"), {atom(kLong), atom(kOther), atom(kLong)});
  EXPECT_EQ(statement_text(0, "y = ", several, ""),
            "y = x[\n    " + kLong + ",\n    " + kOther + ",\n    " + kLong + ",\n]\n");
  const std::string index(90, 'i');
  EXPECT_EQ(statement_text(0, "y = ", subscript(atom("x"), {atom(index)}), ""),
            "y = x[\n    " + index + "\n]\n");
}

TEST(Layout, ParenthesesHaveNoComma) {
  const Text sum = infix(atom(kLong), "+", atom(kOther), 50);
  const Text product = infix(bound(sum, 52), "*", atom(kLong), 52);
  EXPECT_EQ(statement_text(0, "y = ", product, ""),
            "y = (\n    " + kLong + " + " + kOther + "\n) * " + kLong + "\n");
}

TEST(Layout, AMethodOfALongCallBreaksTheCall) {
  const Text x = call("self.first", {atom(kLong), atom(kOther), atom(kLong)});
  EXPECT_EQ(statement_text(0, "y = ", method_call(x, "reshape", {atom("1")}), ""),
            "y = self.first(\n    " + kLong + ",\n    " + kOther + ",\n    " + kLong +
                ",\n).reshape(1)\n");
}

}  // namespace
}  // namespace onnx2nn::emit
