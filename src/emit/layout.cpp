#include "emit/layout.h"

#include <utility>

#include "emit/python_style.h"

namespace onnx2nn::emit {
namespace {

std::string joined(const Text& t, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0) out += t.is_chain() ? " " + t.operators[i - 1] + " " : ", ";
    out += t.items[i].flat();
  }
  return out;
}

/// Writes at `column` of a line that began at `indent`; `after` characters follow.
void write(const Text& t, std::size_t indent, std::size_t column, std::size_t after,
           std::string& out) {
  const std::string flat = t.flat();
  if (!t.breakable || t.items.empty() || column + flat.size() + after <= kWidth) {
    out += flat;
    return;
  }
  if (t.is_chain()) {  // inside brackets: an operand a line
    out += t.prefix;
    write(t.items[0], indent, column + t.prefix.size(), 0, out);
    for (std::size_t i = 1; i < t.items.size(); ++i) {
      const std::string lead = t.operators[i - 1] + " ";
      out += "\n" + std::string(indent, ' ') + lead;
      write(t.items[i], indent, indent + lead.size(), i + 1 < t.items.size() ? 0 : after, out);
    }
    return;
  }
  if (t.inner != nullptr && column + t.prefix.size() + t.head.size() > kWidth) {
    Text inner = *t.inner;
    inner.prefix = t.prefix;
    return write(inner, indent, column, after, out);
  }
  const std::string pad(indent + 4, ' ');
  out += t.prefix + t.head + "\n" + pad;
  const std::string one = joined(t, t.items.size());
  if (t.group) {
    write(t.items[0], indent + 4, pad.size(), 0, out);
    out += "\n";
  } else if (!t.is_display() && pad.size() + one.size() <= kWidth) {
    out += one + "\n";
  } else {
    for (std::size_t i = 0; i < t.items.size(); ++i) {
      if (i > 0) out += pad;
      write(t.items[i], indent + 4, pad.size(), 1, out);
      out += ",\n";
    }
  }
  out += std::string(indent, ' ') + t.tail;
}

}  // namespace

std::string Text::flat() const {
  return prefix + head + joined(*this, items.size()) + (one_tuple && items.size() == 1 ? "," : "") +
         tail;
}

Text atom(std::string s, int precedence) {
  Text t;
  t.head = std::move(s);
  t.precedence = precedence;
  return t;
}

Text brackets(std::string head, std::vector<Text> items, std::string tail) {
  Text t;
  t.head = std::move(head);
  t.items = std::move(items);
  t.tail = std::move(tail);
  t.breakable = true;
  return t;
}

Text call(std::string callee, std::vector<Text> args) {
  return brackets(std::move(callee) + "(", std::move(args), ")");
}

Text method_call(const Text& object, const std::string& method, std::vector<Text> args) {
  const Text on = bound(object, kPostfix);
  if (args.empty()) {
    Text t = postfix(on, "." + method + "()");
    t.dots = on.dots + (on.breakable ? 1 : 0);
    return t;
  }
  Text t = call(on.flat() + "." + method, std::move(args));
  t.dots = on.dots + (on.breakable ? 1 : 0);
  if (on.breakable)
    t.inner = std::make_shared<const Text>(
        postfix(on, "." + method + "(" + joined(t, t.items.size()) + ")"));
  return t;
}

Text infix(Text left, const std::string& op, Text right, int precedence) {
  Text t;
  if (left.is_chain() && left.precedence == precedence) {
    t = std::move(left);
  } else {
    t.items.push_back(std::move(left));
  }
  t.operators.push_back(op);
  t.items.push_back(std::move(right));
  t.precedence = precedence;
  t.breakable = true;
  return t;
}

Text bound(Text t, int precedence) {
  if (t.precedence >= precedence) return t;
  Text out = brackets("(", {std::move(t)}, ")");
  out.group = true;
  return out;
}

Text postfix(Text t, const std::string& suffix) {
  t = bound(std::move(t), kPostfix);
  if (!t.breakable) return atom(t.flat() + suffix);
  t.tail += suffix;
  if (t.inner != nullptr) t.inner = std::make_shared<const Text>(postfix(*t.inner, suffix));
  return t;
}

Text subscript(const Text& t, std::vector<Text> items) {
  const Text on = bound(t, kPostfix);
  if (items.size() == 1 && on.breakable) return postfix(on, "[" + items[0].flat() + "]");
  const bool alone = items.size() == 1;  // a comma would make it a tuple
  Text out = brackets(on.flat() + "[", std::move(items), "]");
  out.group = alone;
  return out;
}

std::string statement_text(std::size_t indent, const std::string& lead, const Text& t,
                           const std::string& trail) {
  const std::string blanks(indent, ' ');
  std::string out = blanks + lead;
  const std::size_t column = out.size();
  if (column + t.flat().size() + trail.size() <= kWidth) return out + t.flat() + trail + "\n";
  if (t.dots > 1 && column > indent && indent + 4 + t.flat().size() <= kWidth)
    return out + "(\n" + std::string(indent + 4, ' ') + t.flat() + "\n" + blanks + ")" + trail + "\n";
  if (t.is_chain()) {
    const Text& first = t.items[0];
    const Text& last = t.items.back();
    const std::string before = joined(t, t.items.size() - 1) + " " + t.operators.back() + " ";
    // One operator before brackets: those are broken. Else parentheses go around the whole.
    if (t.operators.size() == 1 && last.breakable && !last.is_chain() && !last.items.empty() &&
        column + before.size() + last.head.size() <= kWidth) {
      out += before;
      write(last, indent, out.size(), trail.size(), out);
      return out + trail + "\n";
    }
    // The same for one operator behind parentheses, or behind a call where brackets after it cannot be.
    const std::string after = " " + t.operators[0] + " " + last.flat();
    const bool is_call = first.breakable && !first.is_chain() && !first.items.empty() &&
                         !first.is_display() && first.dots < 2;
    const bool broken = first.group ? !last.breakable : is_call && last.breakable;
    if (t.operators.size() == 1 && broken && first.prefix.empty() &&
        indent + first.tail.size() + after.size() <= kWidth) {
      write(first, indent, kWidth, after.size(), out);
      return out + after + trail + "\n";
    }
  }
  if (t.is_chain() || (!t.breakable && t.precedence < kPostfix)) {
    out += "(\n" + std::string(indent + 4, ' ');
    write(t, indent + 4, indent + 4, 0, out);
    return out + "\n" + blanks + ")" + trail + "\n";
  }
  write(t, indent, column, trail.size(), out);
  return out + trail + "\n";
}

}  // namespace onnx2nn::emit
