// JSON to YAML text (yaml.hpp).
#include <yaml-cpp/yaml.h>

#include <regex>

#include "egw/app/yaml.hpp"

namespace egw::app {
namespace {

using nlohmann::json;

// What a YAML 1.1 or 1.2 reader would not take for the same string when it stands without quotes.
bool needs_quotes(const std::string& s) {
  if (s.empty() || s.size() > 1024) return true;
  static const std::regex kWords("(y|n|yes|no|on|off|true|false|null|~|<<|=)", std::regex::icase);
  static const std::regex kNumberLike(
      "[-+]?(0x[0-9a-f_]*|0o[0-7_]*|0b[01_]*|[0-9][0-9_]*(e[-+]?[0-9]*)?|"
      "[0-9_]*[.][0-9_]*(e[-+]?[0-9]*)?|[0-9][0-9_]*(:[0-9]{1,2})+([.][0-9_]*)?)",
      std::regex::icase);
  static const std::regex kDateLike(R"([0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*)");
  static const std::regex kInf(R"([-+]?\.(inf|nan))", std::regex::icase);
  if (std::regex_match(s, kWords) || std::regex_match(s, kNumberLike) ||
      std::regex_match(s, kDateLike) || std::regex_match(s, kInf)) {
    return true;
  }
  if (s.front() == ' ' || s.back() == ' ' || s.back() == ':') return true;
  static constexpr std::string_view kIndicators = "-?:,[]{}#&*!|>'\"%@`";
  if (kIndicators.find(s.front()) != std::string_view::npos) return true;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const auto c = static_cast<unsigned char>(s[i]);
    if (c < 0x20 || c == 0x7f) return true;
    if (c == ':' && i + 1 < s.size() && s[i + 1] == ' ') return true;
    if (c == '#' && i > 0 && s[i - 1] == ' ') return true;
  }
  return false;
}

void emit(YAML::Emitter& out, const json& value) {
  switch (value.type()) {
    case json::value_t::object:
      if (value.empty()) out << YAML::Flow;
      out << YAML::BeginMap;
      for (const auto& [key, item] : value.items()) {
        out << YAML::Key;
        if (needs_quotes(key)) out << YAML::DoubleQuoted;
        out << key << YAML::Value;
        emit(out, item);
      }
      out << YAML::EndMap;
      return;
    case json::value_t::array:
      if (value.empty()) out << YAML::Flow;
      out << YAML::BeginSeq;
      for (const auto& item : value) emit(out, item);
      out << YAML::EndSeq;
      return;
    case json::value_t::string: {
      const auto& s = value.get_ref<const std::string&>();
      if (needs_quotes(s)) out << YAML::DoubleQuoted;
      out << s;
      return;
    }
    case json::value_t::null:
      out << YAML::Null;
      return;
    default:
      out << value.dump();  // number, true, false: JSON's spelling is YAML's
  }
}

}  // namespace

std::string write_yaml(const json& document) {
  YAML::Emitter out;
  out.SetIndent(2);
  out.SetNullFormat(YAML::LowerNull);
  emit(out, document);
  std::string text = out.c_str();
  text += '\n';
  return text;
}

}  // namespace egw::app
