// See watch_events.hpp.
#include "watch_events.hpp"

#include <utility>

#include "answer.hpp"

namespace egw::kube {

using sdk::Code;

namespace {
// etcd takes 1.5 MiB, and the API server adds managedFields.
constexpr std::size_t kMaxLine = std::size_t{8} << 20;
}  // namespace

sdk::Status WatchEvents::feed(std::string_view bytes, const std::function<bool(WatchEvent)>& take) {
  bool go_on = true;
  while (go_on && !bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    if (rest_.size() + std::min(end, bytes.size()) > kMaxLine) {
      return sdk::fail(Code::kInternal, "an event of the watch has more than " +
                                            std::to_string(kMaxLine) + " bytes");
    }
    if (end == std::string_view::npos) {
      rest_.append(bytes);
      return sdk::ok();
    }
    sdk::Status status;
    if (rest_.empty()) {
      status = line(bytes.substr(0, end), take, go_on);
    } else {
      rest_.append(bytes.substr(0, end));
      status = line(std::exchange(rest_, {}), take, go_on);
    }
    if (!status.ok()) return status;
    bytes.remove_prefix(end + 1);
  }
  return sdk::ok();
}

sdk::Status WatchEvents::line(std::string_view text, const std::function<bool(WatchEvent)>& take,
                              bool& go_on) {
  if (text.find_first_not_of(" \t\r") == std::string_view::npos) return sdk::ok();
  sdk::Outcome<nlohmann::json> parsed = parse_object(text);
  if (!parsed.ok()) return parsed.status();
  const std::string type = text_of(*parsed, "type");
  const auto object = parsed->find("object");
  if (object == parsed->end() || !object->is_object()) {
    return sdk::fail(Code::kInternal, "an event of the watch has no object");
  }
  WatchEvent event;
  if (type == "ADDED" || type == "MODIFIED") {
    event.type = WatchEvent::Type::kUpsert;
  } else if (type == "DELETED") {
    event.type = WatchEvent::Type::kDelete;
  } else if (type == "BOOKMARK") {
    event.type = WatchEvent::Type::kBookmark;
  } else if (type != "ERROR") {
    return sdk::fail(Code::kInternal, "an event of the watch has the unknown type \"" +
                                          one_line(type.substr(0, 40)) + "\"");
  }
  event.object = std::move(*object);
  go_on = take(std::move(event));
  return sdk::ok();
}

}  // namespace egw::kube
