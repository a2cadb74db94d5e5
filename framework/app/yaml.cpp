// YAML text to JSON and back (yaml.hpp).
#include "egw/app/yaml.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <optional>
#include <regex>

namespace egw::app {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;

std::string at(const std::string& source, const YAML::Mark& mark) {
  return mark.is_null() ? source : fmt::format("{}:{}", source, mark.line + 1);
}

std::optional<json> parse_integer(std::string_view s) {
  bool negative = false;
  if (!s.empty() && (s.front() == '-' || s.front() == '+')) {
    negative = s.front() == '-';
    s.remove_prefix(1);
  }
  int base = 10;
  if (s.starts_with("0x") || s.starts_with("0o")) {
    base = s[1] == 'x' ? 16 : 8;
    s.remove_prefix(2);
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value, base);
  if (s.empty() || error != std::errc{} || end != s.data() + s.size()) return std::nullopt;
  if (!negative) return json(value);
  if (value > std::uint64_t{1} << 63) return std::nullopt;
  return json(static_cast<std::int64_t>(~value + 1));
}

// The YAML 1.2 core schema's floats: digits with a point or an exponent, .inf and .nan excluded
// because JSON has none.
std::optional<json> parse_float(const std::string& s) {
  static const std::regex kFloat(R"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?)");
  if (s.size() > 64 || !std::regex_match(s, kFloat)) return std::nullopt;
  const char* first = s.c_str() + (s.front() == '+' ? 1 : 0);
  double value = 0;
  const auto [end, error] = std::from_chars(first, s.c_str() + s.size(), value);
  if (error != std::errc{} || end != s.c_str() + s.size() || !std::isfinite(value)) {
    return std::nullopt;
  }
  return json(value);
}

json plain_scalar(const std::string& s) {
  if (s.empty() || s == "~" || s == "null" || s == "Null" || s == "NULL") return nullptr;
  if (s == "true" || s == "True" || s == "TRUE") return true;
  if (s == "false" || s == "False" || s == "FALSE") return false;
  if (auto i = parse_integer(s)) return *std::move(i);
  if (auto f = parse_float(s)) return *std::move(f);
  return s;
}

class Converter {
 public:
  Converter(const std::string& source, std::size_t node_budget)
      : source_(source), budget_(node_budget) {}

  Result<json> convert(const YAML::Node& node, int depth) {
    if (budget_ == 0) {
      return fail(Errc::kInvalid, at(source_, node.Mark()),
                  "aliases expand to more than the file holds; write the values out");
    }
    --budget_;
    if (depth > kMaxDepth) {
      return fail(Errc::kInvalid, at(source_, node.Mark()),
                  fmt::format("nested deeper than {} levels", kMaxDepth));
    }
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return json(nullptr);
      case YAML::NodeType::Scalar:
        return scalar(node);
      case YAML::NodeType::Sequence:
        return sequence(node, depth);
      case YAML::NodeType::Map:
        return map(node, depth);
    }
    return json(nullptr);
  }

 private:
  Result<json> scalar(const YAML::Node& node) {
    const std::string& tag = node.Tag();
    if (tag.empty() || tag == "?") return plain_scalar(node.Scalar());
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return json(node.Scalar());
    return fail(Errc::kInvalid, at(source_, node.Mark()),
                fmt::format("the tag {} is not supported; write a plain or quoted value", tag));
  }

  Result<json> sequence(const YAML::Node& node, int depth) {
    json out = json::array();
    for (const auto& item : node) {
      auto value = convert(item, depth + 1);
      if (!value) return value;
      out.push_back(*std::move(value));
    }
    return out;
  }

  Result<json> map(const YAML::Node& node, int depth) {
    json out = json::object();
    for (const auto& pair : node) {
      if (!pair.first.IsScalar()) {
        return fail(Errc::kInvalid, at(source_, pair.first.Mark()), "a key must be a plain string");
      }
      const std::string& key = pair.first.Scalar();
      if (out.contains(key)) {
        return fail(Errc::kInvalid, at(source_, pair.first.Mark()),
                    fmt::format("the key \"{}\" is given twice", key));
      }
      auto value = convert(pair.second, depth + 1);
      if (!value) return value;
      out[key] = *std::move(value);
    }
    return out;
  }

  const std::string& source_;
  std::size_t budget_;
};

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

Result<std::string> read_fd(int fd, const std::string& path, std::size_t max_bytes) {
  std::string text;
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(Errc::kInvalid, path, "cannot be read", errno);
    if (n == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
    if (text.size() > max_bytes) {
      return fail(Errc::kInvalid, path,
                  fmt::format("is larger than {} KiB, the most that is read", max_bytes / 1024));
    }
  }
}

}  // namespace

Result<std::vector<json>> read_yaml(std::string_view text, const std::string& source,
                                    std::size_t max_bytes) {
  if (text.size() > max_bytes) {
    return fail(Errc::kInvalid, source,
                fmt::format("is larger than {} KiB, the most that is read", max_bytes / 1024));
  }
  std::vector<json> documents;
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') {
    bool too_deep = false;
    const auto bound = [&too_deep](int depth, json::parse_event_t, json&) {
      too_deep = too_deep || depth > kMaxDepth;
      return !too_deep;
    };
    json document = json::parse(text, bound, false);
    if (too_deep) {
      return fail(Errc::kInvalid, source, fmt::format("nested deeper than {} levels", kMaxDepth));
    }
    if (!document.is_discarded()) {
      documents.push_back(std::move(document));
      return documents;
    }
  }
  try {
    for (const YAML::Node& node : YAML::LoadAll(std::string(text))) {
      if (!node.IsDefined() || node.IsNull()) continue;
      // Without aliases a text has fewer nodes than bytes.
      auto document = Converter(source, text.size() + 1).convert(node, 0);
      if (!document) return tl::unexpected(std::move(document.error()));
      documents.push_back(*std::move(document));
    }
  } catch (const YAML::Exception& e) {
    return fail(Errc::kInvalid, at(source, e.mark), "not valid YAML: " + e.msg);
  }
  return documents;
}

Result<json> read_yaml_value(std::string_view text, const std::string& source) {
  auto documents = read_yaml(text, source, 64 * 1024);
  if (!documents) return tl::unexpected(std::move(documents.error()));
  if (documents->size() > 1) return fail(Errc::kInvalid, source, "want one YAML value");
  if (!documents->empty()) return std::move(documents->front());
  return text.empty() ? json("") : json(nullptr);
}

std::string write_yaml(const json& document) {
  YAML::Emitter out;
  out.SetIndent(2);
  out.SetNullFormat(YAML::LowerNull);
  emit(out, document);
  std::string text = out.c_str();
  text += '\n';
  return text;
}

Result<std::string> read_text(const std::string& path, std::size_t max_bytes) {
  if (path == "-") return read_fd(STDIN_FILENO, "standard input", max_bytes);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return fail(Errc::kNotFound, path, "cannot be opened", errno);
  struct stat status {};
  Result<std::string> text;
  if (::fstat(fd, &status) != 0 || S_ISDIR(status.st_mode)) {
    text = fail(Errc::kInvalid, path, "is a folder; name a file");
  } else if (S_ISBLK(status.st_mode)) {
    text = fail(Errc::kInvalid, path, "is a block device; name a file");
  } else {
    text = read_fd(fd, path, max_bytes);
  }
  ::close(fd);
  return text;
}

}  // namespace egw::app
