// See filter.hpp.
#include "filter.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "member_text.hpp"

namespace egw::local {

using nlohmann::json;
using sdk::Code;

namespace {

constexpr std::size_t kMaxText = 4096;

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// At commas outside of parentheses.
std::vector<std::string_view> split_terms(std::string_view s) {
  std::vector<std::string_view> out;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= s.size(); ++i) {
    if (i == s.size() || (s[i] == ',' && depth == 0)) {
      out.push_back(trim(s.substr(begin, i - begin)));
      begin = i + 1;
    } else if (s[i] == '(') {
      ++depth;
    } else if (s[i] == ')') {
      --depth;
    }
  }
  return out;
}

bool is_token(std::string_view s, std::string_view more) {
  return std::all_of(s.begin(), s.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           more.find(c) != std::string_view::npos;
  });
}
bool is_label_key(std::string_view s) { return !s.empty() && is_token(s, "-_./"); }
bool is_label_value(std::string_view s) { return is_token(s, "-_."); }

// "key = value", "key == value", "key != value". False: no operator.
struct Comparison {
  std::string_view key, value;
  bool equal = true;
};
bool split_comparison(std::string_view term, Comparison& out) {
  const std::size_t at = term.find('=');
  if (at == std::string_view::npos) return false;
  out.equal = at == 0 || term[at - 1] != '!';
  out.key = trim(term.substr(0, out.equal ? at : at - 1));
  const bool twice = out.equal && at + 1 < term.size() && term[at + 1] == '=';
  out.value = trim(term.substr(at + (twice ? 2 : 1)));
  return true;
}

sdk::Status unreadable(std::string_view what, std::string_view term, std::string_view wanted) {
  return sdk::fail(Code::kInvalid, std::string(what) + " selector: cannot read \"" +
                                       std::string(term) + "\"; wanted e.g. " +
                                       std::string(wanted));
}

const json* at_path(const json& document, const std::vector<std::string>& path) {
  const json* here = &document;
  for (const std::string& step : path) {
    if (!here->is_object()) return nullptr;
    const auto it = here->find(step);
    if (it == here->end()) return nullptr;
    here = &*it;
  }
  return here;
}

std::string value_text(const json* value) {
  if (value == nullptr || value->is_null()) return {};
  return value->is_string() ? value->get<std::string>() : value->dump();
}

}  // namespace

sdk::Outcome<Filter::FieldTerm> Filter::parse_field(std::string_view term) {
  constexpr std::string_view kWanted = "spec.nodeName=node1";
  Comparison c;
  if (!split_comparison(term, c) || c.key.empty()) return unreadable("field", term, kWanted);
  FieldTerm out;
  out.equal = c.equal;
  out.value = std::string(c.value);
  for (std::string_view rest = c.key;;) {
    const std::size_t dot = rest.find('.');
    out.path.emplace_back(rest.substr(0, dot));
    if (out.path.back().empty()) return unreadable("field", term, kWanted);
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  return out;
}

sdk::Outcome<Filter::LabelTerm> Filter::parse_label(std::string_view term) {
  constexpr std::string_view kWanted = "a=b, a!=b, a in (b,c), a notin (b,c), a or !a";
  LabelTerm out;
  if (!term.empty() && term.front() == '!' && is_label_key(trim(term.substr(1)))) {
    out.op = LabelTerm::Op::kMissing;
    out.key = std::string(trim(term.substr(1)));
    return out;
  }
  if (is_label_key(term)) {
    out.key = std::string(term);
    return out;
  }
  if (Comparison c; split_comparison(term, c)) {
    if (!is_label_key(c.key) || !is_label_value(c.value)) return unreadable("label", term, kWanted);
    out.op = c.equal ? LabelTerm::Op::kIn : LabelTerm::Op::kNotIn;
    out.key = std::string(c.key);
    out.values.emplace_back(c.value);
    return out;
  }
  const std::size_t space = term.find_first_of(" \t");
  if (space == std::string_view::npos) return unreadable("label", term, kWanted);
  const std::string_view key = term.substr(0, space);
  std::string_view rest = trim(term.substr(space));
  const bool negated = rest.substr(0, 5) == "notin";
  if (!negated && rest.substr(0, 2) != "in") return unreadable("label", term, kWanted);
  rest = trim(rest.substr(negated ? 5 : 2));
  if (!is_label_key(key) || rest.size() < 2 || rest.front() != '(' || rest.back() != ')') {
    return unreadable("label", term, kWanted);
  }
  out.op = negated ? LabelTerm::Op::kNotIn : LabelTerm::Op::kIn;
  out.key = std::string(key);
  for (const std::string_view value : split_terms(rest.substr(1, rest.size() - 2))) {
    if (!is_label_value(value)) return unreadable("label", term, kWanted);
    out.values.emplace_back(value);
  }
  return out;
}

sdk::Outcome<Filter> Filter::parse(std::string_view fields, std::string_view labels) {
  Filter out;
  if (fields.size() > kMaxText || labels.size() > kMaxText) {
    return sdk::fail(Code::kInvalid,
                     "a selector may have at most " + std::to_string(kMaxText) + " bytes");
  }
  if (!trim(fields).empty()) {
    for (const std::string_view term : split_terms(fields)) {
      sdk::Outcome<FieldTerm> parsed = parse_field(term);
      if (!parsed.ok()) return parsed.status();
      out.fields_.push_back(std::move(*parsed));
    }
  }
  if (!trim(labels).empty()) {
    for (const std::string_view term : split_terms(labels)) {
      sdk::Outcome<LabelTerm> parsed = parse_label(term);
      if (!parsed.ok()) return parsed.status();
      out.labels_.push_back(std::move(*parsed));
    }
  }
  out.collect_needles();
  return out;
}

// A value of plain characters occurs in a stored document's text as it is (without the quotes: a
// number matches "5" too).
void Filter::collect_needles() {
  const auto add = [this](const std::string& value) {
    if (!value.empty() && is_token(value, "-_./:")) needles_.push_back(value);
  };
  for (const FieldTerm& term : fields_) {
    if (term.equal) add(term.value);
  }
  for (const LabelTerm& term : labels_) {
    if (term.op == LabelTerm::Op::kIn && term.values.size() == 1) add(term.values.front());
  }
}

bool Filter::matches(std::string_view document) const {
  if (empty()) return true;
  if (const auto judged = judge_text(document)) return *judged;
  for (const std::string& needle : needles_) {
    if (document.find(needle) == std::string_view::npos) return false;
  }
  const json parsed = json::parse(document, nullptr, false);
  return parsed.is_object() && matches(parsed);
}

std::optional<bool> Filter::judge_text(std::string_view document) const {
  if (!labels_.empty()) return std::nullopt;
  for (const FieldTerm& term : fields_) {
    const MemberText found = member_text(document, term.path);
    if (!found.readable) return std::nullopt;
    if ((found.string == term.value) != term.equal) return false;
  }
  return true;
}

bool Filter::matches(const json& document) const {
  for (const FieldTerm& term : fields_) {
    if ((value_text(at_path(document, term.path)) == term.value) != term.equal) return false;
  }
  if (labels_.empty()) return true;
  const json* labels = at_path(document, {"metadata", "labels"});
  for (const LabelTerm& term : labels_) {
    const json* value = labels == nullptr ? nullptr : at_path(*labels, {term.key});
    const bool there = value != nullptr && value->is_string();
    const bool listed =
        there && std::find(term.values.begin(), term.values.end(),
                           value->get_ref<const std::string&>()) != term.values.end();
    const bool holds = term.op == LabelTerm::Op::kExists    ? there
                       : term.op == LabelTerm::Op::kMissing ? !there
                       : term.op == LabelTerm::Op::kIn      ? listed
                                                            : !listed;
    if (!holds) return false;
  }
  return true;
}

}  // namespace egw::local
