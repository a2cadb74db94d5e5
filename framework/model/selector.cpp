// Label selectors: matching, JSON, and the text form of `kubectl -l`.
#include "egw/model/selector.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "egw/model/json_reader.hpp"
#include "egw/model/names.hpp"
#include "egw/model/text.hpp"

namespace egw::model {
namespace {

using nlohmann::json;
using Op = Requirement::Op;

bool alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// apimachinery, validation.IsQualifiedName without its prefix: 1 to 63 of [A-Za-z0-9._-], with
// letters or digits at both ends.
bool valid_name(std::string_view text) {
  if (text.empty() || text.size() > 63) return false;
  if (!alphanumeric(text.front()) || !alphanumeric(text.back())) return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return alphanumeric(c) || c == '-' || c == '_' || c == '.'; });
}

}  // namespace

bool is_label_key(std::string_view key) {
  const std::size_t slash = key.find('/');
  if (slash == std::string_view::npos) return valid_name(key);
  return is_subdomain(key.substr(0, slash)) && valid_name(key.substr(slash + 1));
}

bool is_label_value(std::string_view value) { return value.empty() || valid_name(value); }

namespace {

// Whether the number of values fits the operator; empty: it does; else what is wanted.
std::string_view wanted_values(const Requirement& r) {
  const bool takes_values = r.op == Op::kIn || r.op == Op::kNotIn;
  if (takes_values && r.values.empty()) return "at least one value for In and NotIn";
  if (!takes_values && !r.values.empty()) return "no values for Exists and DoesNotExist";
  return {};
}

void canonicalise(Requirement& r) {
  std::sort(r.values.begin(), r.values.end());
  r.values.erase(std::unique(r.values.begin(), r.values.end()), r.values.end());
}

// One order for one meaning, so that equal selectors compare equal however they were written.
void canonicalise(std::vector<Requirement>& requirements) {
  const auto rank = [](const Requirement& r) { return std::tie(r.key, r.op, r.values); };
  std::sort(requirements.begin(), requirements.end(),
            [&](const Requirement& a, const Requirement& b) { return rank(a) < rank(b); });
  requirements.erase(std::unique(requirements.begin(), requirements.end()), requirements.end());
}

constexpr std::pair<std::string_view, Op> kOperators[] = {
    {"In", Op::kIn},
    {"NotIn", Op::kNotIn},
    {"Exists", Op::kExists},
    {"DoesNotExist", Op::kDoesNotExist},
};

bool holds(const Requirement& r, const Labels& labels) {
  const auto it = labels.find(r.key);
  const bool present = it != labels.end();
  const auto listed = [&] {
    return std::find(r.values.begin(), r.values.end(), it->second) != r.values.end();
  };
  switch (r.op) {
    case Op::kIn:
      return present && listed();
    case Op::kNotIn:
      return !present || !listed();
    case Op::kExists:
      return present;
    case Op::kDoesNotExist:
      return !present;
  }
  return false;
}

// The text form, taken apart from the left.
class TextParser {
 public:
  explicit TextParser(std::string_view text) : rest_(text) {}

  // False: `problem` says why.
  bool run(std::vector<Requirement>& out, std::string& problem) {
    skip_spaces();
    while (!rest_.empty()) {
      Requirement r;
      if (!one(r)) {
        problem = problem_;
        return false;
      }
      canonicalise(r);
      out.push_back(std::move(r));
      skip_spaces();
      if (rest_.empty()) break;
      if (!take(",")) {
        problem = "requirements are separated by commas";
        return false;
      }
      skip_spaces();
      if (rest_.empty()) {
        problem = "it ends with a comma";
        return false;
      }
    }
    return true;
  }

 private:
  void skip_spaces() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t')) rest_.remove_prefix(1);
  }
  bool take(std::string_view token) {
    skip_spaces();
    if (rest_.substr(0, token.size()) != token) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  std::string word() {
    skip_spaces();
    std::size_t n = 0;
    while (n < rest_.size() && std::string_view("=!,() \t").find(rest_[n]) == rest_.npos) ++n;
    std::string out(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return out;
  }
  bool wrong(std::string_view why) {
    problem_ = why;
    return false;
  }
  bool checked(const Requirement& r) {
    const auto want = [&](const std::string& value, std::string_view what) {
      return what.empty() || wrong(fmt::format("\"{}\": want {}", value, what));
    };
    if (!is_label_key(r.key)) return want(r.key, kWantLabelKey);
    const auto bad = std::find_if_not(r.values.begin(), r.values.end(), is_label_value);
    if (bad != r.values.end()) return want(*bad, kWantLabelValue);
    return want(r.key, wanted_values(r));
  }

  bool one(Requirement& r) {
    if (take("!")) {
      r.op = Op::kDoesNotExist;
      r.key = word();
      return checked(r);
    }
    r.key = word();
    if (r.key.empty()) return wrong("a label key is missing");
    skip_spaces();
    if (rest_.empty() || rest_[0] == ',') {
      r.op = Op::kExists;
      return checked(r);
    }
    if (take("!=")) {
      r.op = Op::kNotIn;
      r.values.push_back(word());
      return checked(r);
    }
    if (take("==") || take("=")) {
      r.op = Op::kIn;
      r.values.push_back(word());
      return checked(r);
    }
    return set(r) && checked(r);
  }

  bool set(Requirement& r) {
    const std::string op = word();
    if (op != "in" && op != "notin") {
      return wrong(
          fmt::format("after \"{}\" comes =, ==, !=, in (...), notin (...) or a comma", r.key));
    }
    r.op = op == "in" ? Op::kIn : Op::kNotIn;
    if (!take("(")) return wrong(fmt::format("values of \"{}\" stand in brackets: (a,b)", r.key));
    do {
      r.values.push_back(word());
    } while (take(","));
    return take(")") || wrong(fmt::format("the bracket after \"{}\" is not closed", r.key));
  }

  std::string_view rest_;
  std::string problem_;
};

void check_text(const Cursor& at, const std::string& text, bool good, std::string_view want) {
  if (!good) {
    at.note(
        {Errc::kInvalid, at.path(), fmt::format("\"{}\": want {}", shortened(text, 100), want)});
  }
}

// One of matchExpressions, with every fault that it has.
void read_expression(const Cursor& c, Requirement& r) {
  std::string op;
  const Cursor key = c["key"];
  const Cursor values = c["values"];
  const std::size_t before = c.faults();
  key.get(r.key);
  if (c.faults() == before) check_text(key, r.key, is_label_key(r.key), kWantLabelKey);
  const std::size_t after_key = c.faults();
  values.get(r.values);
  c["operator"].get(op);
  if (c.faults() != after_key) return;
  for (std::size_t i = 0; i < r.values.size(); ++i) {
    if (is_label_value(r.values[i])) continue;
    c.note({Errc::kInvalid, fmt::format("{}[{}]", values.path(), i),
            fmt::format("\"{}\": want {}", shortened(r.values[i], 100), kWantLabelValue)});
  }
  const auto* known = std::find_if(std::begin(kOperators), std::end(kOperators),
                                   [&](const auto& o) { return o.first == op; });
  if (known == std::end(kOperators)) {
    c.note({Errc::kInvalid, c.path() + ".operator",
            fmt::format("\"{}\": want In, NotIn, Exists or DoesNotExist", shortened(op, 60))});
    return;
  }
  r.op = known->second;
  if (const std::string_view want = wanted_values(r); !want.empty()) {
    c.note({Errc::kInvalid, values.path(),
            fmt::format("[{}]: want {}", fmt::join(r.values, ", "), want)});
  }
}

}  // namespace

bool LabelSelector::matches(const Labels& labels) const {
  return std::all_of(requirements.begin(), requirements.end(),
                     [&](const Requirement& r) { return holds(r, labels); });
}

Result<LabelSelector> LabelSelector::parse_text(std::string_view text) {
  LabelSelector out;
  std::string problem;
  if (!TextParser(text).run(out.requirements, problem)) {
    return fail(Errc::kInvalid, "",
                fmt::format("\"{}\" is not a label selector: {}; an example is "
                            "\"a=b,c!=d,e in (f,g),h,!i\"",
                            shortened(text, 200), problem));
  }
  canonicalise(out.requirements);
  return out;
}

LabelSelector read_selector(const Cursor& c) {
  LabelSelector out;
  std::size_t before = c.faults();
  const auto add = [&](Requirement r) {
    canonicalise(r);
    if (c.faults() == before) out.requirements.push_back(std::move(r));
    before = c.faults();
  };
  c["matchLabels"].members([&](const std::string& key, const Cursor& at) {
    Requirement r{key, Op::kIn, {""}};
    check_text(at, key, is_label_key(key), kWantLabelKey);
    at.get(r.values[0]);
    if (at.value()->is_null()) at.mismatch("a string");
    check_text(at, r.values[0], is_label_value(r.values[0]), kWantLabelValue);
    add(std::move(r));
  });
  c["matchExpressions"].each([&](const Cursor& at) {
    Requirement r;
    read_expression(at, r);
    add(std::move(r));
  });
  canonicalise(out.requirements);
  return out;
}

Result<LabelSelector> decode_selector(const json& j, std::string_view path) {
  std::vector<Error> faults;
  LabelSelector out = read_selector(Cursor(j, faults, path));
  if (!faults.empty()) return tl::unexpected(std::move(faults.front()));
  return out;
}

json encode_selector(const LabelSelector& selector) {
  json out = json::object();
  for (const Requirement& r : selector.requirements) {
    const bool as_label = r.op == Op::kIn && r.values.size() == 1 &&
                          !(out.contains("matchLabels") && out["matchLabels"].contains(r.key));
    if (as_label) {
      out["matchLabels"][r.key] = r.values[0];
      continue;
    }
    json e{{"key", r.key}};
    for (const auto& [text, op] : kOperators) {
      if (op == r.op) e["operator"] = text;
    }
    if (!r.values.empty()) e["values"] = r.values;
    out["matchExpressions"].push_back(std::move(e));
  }
  return out;
}

}  // namespace egw::model
