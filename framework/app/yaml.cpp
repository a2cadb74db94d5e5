// YAML text to JSON and back (yaml.hpp).
#include "egw/app/yaml.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

namespace egw::app {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDepth = 64;
constexpr std::string_view kPlainKey = "a key must be a plain string";

std::string too_deep_text() {
  return fmt::format("nested deeper than {} levels, the most that is read", kMaxDepth);
}

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

// What the text may not hold; carries the place.
struct Refused : std::runtime_error {
  Refused(const YAML::Mark& where, const std::string& why) : std::runtime_error(why), mark(where) {}
  YAML::Mark mark;
};

// Builds JSON from the parser's events. Bounds hold while the text is read: yaml-cpp's own nodes
// share aliased parts without a bound, and its LoadAll() never ends on a stray "," between
// documents.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::size_t node_budget) : budget_(node_budget) {}

  std::vector<json> documents;  // those that hold something

  // After a mistake: takes the last document away unless a line "---" or "..." ends it before.
  void drop_unfinished(std::string_view text, const YAML::Mark& mistake) {
    if (documents.empty()) return;
    int line = 0;
    for (std::size_t at = 0; !mistake.is_null() && at < text.size() && line <= mistake.line;) {
      const std::string_view rest = text.substr(at);
      const bool marker = rest.starts_with("---") || rest.starts_with("...");
      if (marker && line > last_line_) return;
      const std::size_t end = rest.find('\n');
      at = end == std::string_view::npos ? text.size() : at + end + 1;
      ++line;
    }
    documents.pop_back();
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (mark.pos <= last_start_) throw Refused(mark, "not valid YAML: unexpected text");
    last_start_ = mark.pos;
    start_line_ = mark.line;
    anchors_.clear();
    used_ = 0;
  }
  void OnDocumentEnd() override {
    if (!document_.is_null()) {
      documents.push_back(std::move(document_));
      last_line_ = start_line_;
    }
    document_ = nullptr;
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    spend(mark, 1);
    place(mark, nullptr, anchor, 1);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw Refused(mark, "an alias refers to itself");
    spend(mark, found->second.nodes);
    place(mark, found->second.value, 0, found->second.nodes);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    spend(mark, 1);
    if (wants_key()) {
      if (tag != "!" && value == "<<") return begin_merge(mark);
      return take_key(mark, value);
    }
    if (tag.starts_with(kCoreTag) && tag != kCoreTag + "str") {
      return place(mark, tagged_scalar(mark, tag, value), anchor, 1);
    }
    if (tag.empty() || tag == "?") return place(mark, plain_scalar(value), anchor, 1);
    if (tag == "!" || tag == "tag:yaml.org,2002:str") return place(mark, value, anchor, 1);
    refuse_tag(mark, tag);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, json::array());
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(mark, tag, anchor, json::object());
  }
  void OnMapEnd() override { end(); }

 private:
  struct Open {
    json value;
    YAML::Mark mark;
    YAML::anchor_t anchor;
    std::size_t used_before;
    std::optional<std::string> key;
    bool merging = false;                          // the next value is that of "<<"
    std::optional<json> inherited = std::nullopt;  // from "<<": what the map does not give itself
  };
  struct Anchored {
    json value;
    std::size_t nodes;
  };

  inline static const std::string kCoreTag = "tag:yaml.org,2002:";

  [[noreturn]] static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    throw Refused(mark,
                  fmt::format("the tag {} is not supported; write a plain or quoted value", tag));
  }
  void spend(const YAML::Mark& mark, std::size_t nodes) {
    used_ += nodes;
    if (used_ > budget_) {
      throw Refused(mark, "aliases expand to more than the file holds; write the values out");
    }
  }
  [[nodiscard]] bool wants_key() const {
    return !open_.empty() && open_.back().value.is_object() && !open_.back().key;
  }
  // Null, a truth value or a number that says what it is.
  static json tagged_scalar(const YAML::Mark& mark, const std::string& tag,
                            const std::string& value) {
    json out = plain_scalar(value);
    const std::string kind = tag.substr(kCoreTag.size());
    if ((kind == "int" && out.is_number_integer()) || (kind == "float" && out.is_number()) ||
        (kind == "bool" && out.is_boolean()) || (kind == "null" && out.is_null())) {
      return out;
    }
    if (kind != "int" && kind != "float" && kind != "bool" && kind != "null") refuse_tag(mark, tag);
    throw Refused(mark,
                  fmt::format("\"{}\" is no value for the tag !!{}", value.substr(0, 100), kind));
  }
  void begin_merge(const YAML::Mark& mark) {
    if (open_.back().inherited) throw Refused(mark, "the key \"<<\" is given twice");
    open_.back().inherited = json::object();
    open_.back().merging = true;
    open_.back().key = "<<";
  }
  // A map, or a list of maps of which the first that has a key gives it.
  void merge(const YAML::Mark& mark, const json& value) {
    Open& open = open_.back();
    open.merging = false;
    open.key.reset();
    const auto add = [&](const json& map) {
      if (!map.is_object()) throw Refused(mark, "the value of << must be a map or a list of maps");
      for (const auto& [key, item] : map.items()) open.inherited->emplace(key, item);
    };
    if (!value.is_array()) return add(value);
    for (const json& map : value) add(map);
  }
  void take_key(const YAML::Mark& mark, const std::string& key) {
    if (open_.back().value.contains(key)) {
      throw Refused(mark, fmt::format("the key \"{}\" is given twice", key));
    }
    open_.back().key = key;
  }
  void begin(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, json empty) {
    if (wants_key()) throw Refused(mark, std::string(kPlainKey));
    const bool own = tag == kCoreTag + (empty.is_object() ? "map" : "seq");
    if (!tag.empty() && tag != "?" && tag != "!" && !own) refuse_tag(mark, tag);
    if (open_.size() >= kMaxDepth) {
      throw Refused(mark, too_deep_text());
    }
    spend(mark, 1);
    open_.push_back({std::move(empty), mark, anchor, used_ - 1, std::nullopt});
  }
  void end() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (done.inherited) {
      for (const auto& [key, item] : done.inherited->items()) done.value.emplace(key, item);
    }
    place(done.mark, std::move(done.value), done.anchor, used_ - done.used_before);
  }
  void place(const YAML::Mark& mark, json value, YAML::anchor_t anchor, std::size_t nodes) {
    if (anchor != 0) anchors_[anchor] = {value, nodes};
    if (open_.empty()) {
      document_ = std::move(value);
    } else if (open_.back().value.is_array()) {
      open_.back().value.push_back(std::move(value));
    } else if (wants_key()) {
      throw Refused(mark, std::string(kPlainKey));
    } else if (open_.back().merging) {
      merge(mark, value);
    } else {
      open_.back().value[*open_.back().key] = std::move(value);
      open_.back().key.reset();
    }
  }

  std::size_t budget_;
  std::size_t used_ = 0;
  int last_start_ = -1;
  int start_line_ = 0;
  int last_line_ = 0;  // where the last of `documents` begins
  json document_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Anchored> anchors_;
};

// For the JSON parser: goes on while nothing is too deep and no key is given twice.
struct JsonBounds {
  bool too_deep = false;
  bool twice = false;
  std::vector<std::set<std::string>> keys;  // of the objects that are open

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    too_deep = too_deep || depth > static_cast<int>(kMaxDepth);
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      twice = true;
    }
    return !too_deep && !twice;
  }
};

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

// What the JSON parser says of a text that is meant to be JSON; none: it is rather YAML between
// braces.
std::optional<Error> mistake_in_json(std::string_view text, std::size_t brace,
                                     const std::string& source) {
  const auto next = text.find_first_not_of(" \t\r\n", brace + 1);
  if (next == std::string_view::npos || (text[next] != '"' && text[next] != '/'))
    return std::nullopt;
  try {
    const json unused = json::parse(text);
  } catch (const json::parse_error& e) {
    const auto end = std::min(e.byte == 0 ? 0 : e.byte - 1, text.size());
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<long>(end), '\n');
    std::string why = e.what();
    why.erase(0, why.find(": ") + 2);  // its own name and place
    return Error{Errc::kInvalid, fmt::format("{}:{}", source, line),
                 "not valid JSON (which has no comments and no comma after the last): " + why};
  }
  return std::nullopt;
}

// How many brackets are open at the end of a text whose first character is one; 0: that one is
// closed.
std::size_t never_closed(std::string_view text) {
  std::size_t open = 0;
  char before = ' ';  // not a space
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '[' || c == '{') ++open;
    if ((c == ']' || c == '}') && --open == 0) return 0;
    const bool spaced =
        i > 0 && std::string_view(" \t\n").find(text[i - 1]) != std::string_view::npos;
    if (c == '#' && spaced) i = std::min(text.find('\n', i), text.size());
    if ((c == '"' || c == '\'') &&
        std::string_view("[{,:").find(before) != std::string_view::npos) {
      for (++i; i < text.size() && text[i] != c; ++i) {
        if (c == '"' && text[i] == '\\') ++i;
      }
    }
    if (c != ' ' && c != '\t' && c != '\n' && c != '#') before = c;
  }
  return open;
}

// To the parser a list or map that is not closed may be the beginning of a key.
std::string key_in_other_words(std::string_view text, const YAML::Mark& mark) {
  const auto at = static_cast<std::size_t>(std::max(mark.pos, 0));
  if (at < text.size() && (text[at] == '[' || text[at] == '{')) {
    const std::size_t open = never_closed(text.substr(at));
    if (open > kMaxDepth) return too_deep_text();
    if (open > 0)
      return fmt::format("not valid YAML: the {} here is not closed: add its {}", text[at],
                         text[at] == '[' ? ']' : '}');
  }
  return std::string(kPlainKey);
}

// The mistake as the parser tells it, unless the text shows a likelier cause.
Error in_other_words(std::string_view text, const std::string& source, const YAML::Mark& mark,
                     std::string what) {
  int line = 0;
  for (std::size_t i = 0; !mark.is_null() && i < text.size() && line <= mark.line + 1; ++line) {
    const std::size_t end = std::min(text.find('\n', i), text.size());
    const std::string_view row = text.substr(i, end - i);
    const auto word = row.find_first_not_of(" \t");
    if (word != std::string_view::npos && row[word] != '#' &&
        row.substr(0, word).find('\t') != std::string_view::npos && line + 1 >= mark.line) {
      return {Errc::kInvalid, fmt::format("{}:{}", source, line + 1),
              "not valid YAML: the line is indented with a tab; YAML wants spaces"};
    }
    i = end + 1;
  }
  return {Errc::kInvalid, at(source, mark), std::move(what)};
}

// Where the text ceases to be UTF-8 (RFC 3629: shortest form, no surrogates), npos if it is all.
std::size_t first_not_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t more = lead < 0x80U                    ? 0
                             : lead >= 0xc2U && lead < 0xe0U ? 1
                             : (lead & 0xf0U) == 0xe0U       ? 2
                             : lead >= 0xf0U && lead < 0xf5U ? 3
                                                             : std::string_view::npos;
    if (more == std::string_view::npos || more >= text.size() - i) return i;
    std::uint32_t point = more == 0 ? lead : lead & (0x3fU >> more);
    for (std::size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0U) != 0x80U) return i;
      point = point << 6U | (next & 0x3fU);
    }
    if ((more == 2 && (point < 0x800U || (point >= 0xd800U && point < 0xe000U))) ||
        (more == 3 && (point < 0x10000U || point > 0x10ffffU))) {
      return i;
    }
    i += more + 1;
  }
  return std::string_view::npos;
}

}  // namespace

YamlText read_yaml_documents(std::string_view text, const std::string& source,
                             std::size_t max_bytes) {
  const auto mistake = [](const std::string& where, std::string what) {
    return YamlText{{}, Error{Errc::kInvalid, where, std::move(what)}};
  };
  if (text.size() > max_bytes) {
    return mistake(source,
                   fmt::format("is larger than {} KiB, the most that is read", max_bytes / 1024));
  }
  if (const auto bad = first_not_utf8(text); bad != std::string_view::npos) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<long>(bad), '\n');
    return mistake(fmt::format("{}:{}", source, line),
                   fmt::format("byte 0x{:02x} is no UTF-8 text: save the file as UTF-8",
                               static_cast<unsigned char>(text[bad])));
  }
  std::optional<Error> json_mistake;
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{') {
    JsonBounds bounds;
    json document = json::parse(text, std::ref(bounds), false);
    if (bounds.too_deep) {
      return mistake(source, too_deep_text());
    }
    // What is refused for a key goes to the YAML reader, which names its line.
    if (!document.is_discarded() && !bounds.twice) return {{std::move(document)}, std::nullopt};
    if (!bounds.twice) json_mistake = mistake_in_json(text, first, source);
  }
  // Without aliases a text has fewer nodes than bytes.
  Builder builder(text.size() + 1);
  YamlText out;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refused& e) {
    builder.drop_unfinished(text, e.mark);
    const std::string what = e.what() == kPlainKey ? key_in_other_words(text, e.mark) : e.what();
    out.mistake = in_other_words(text, source, e.mark, what);
  } catch (const YAML::Exception& e) {
    builder.drop_unfinished(text, e.mark);
    out.mistake = in_other_words(text, source, e.mark, "not valid YAML: " + e.msg);
  }
  if (out.mistake && json_mistake && builder.documents.empty()) out.mistake = json_mistake;
  out.documents = std::move(builder.documents);
  return out;
}

Result<std::vector<json>> read_yaml(std::string_view text, const std::string& source,
                                    std::size_t max_bytes) {
  YamlText read = read_yaml_documents(text, source, max_bytes);
  if (read.mistake) return tl::unexpected(*std::move(read.mistake));
  return std::move(read.documents);
}

Result<json> read_yaml_value(std::string_view text, const std::string& source) {
  auto documents = read_yaml(text, source, std::size_t{64} * 1024);
  if (!documents) return tl::unexpected(std::move(documents.error()));
  if (documents->size() > 1) return fail(Errc::kInvalid, source, "want one YAML value");
  if (!documents->empty()) return std::move(documents->front());
  return text.empty() ? json("") : json(nullptr);
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

std::string write_json(const nlohmann::json& document) {
  return document.dump(4, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace egw::app
