// Splits the body of a watch into its events (one JSON object a line: metav1.WatchEvent). Used by
// reflector.cpp; has no I/O, so that a fuzzer can feed it.
#pragma once

#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "egw/sdk/status.hpp"

namespace egw::kube {

struct WatchEvent {
  enum class Type { kUpsert, kDelete, kBookmark, kError } type = Type::kError;
  nlohmann::json object;  // kError: a metav1.Status
};

class WatchEvents {
 public:
  // Takes the next bytes and gives the events that are complete to `take`, until it answers false.
  // kInternal: what comes is no watch; the rest of the stream cannot be used.
  sdk::Status feed(std::string_view bytes, const std::function<bool(WatchEvent)>& take);

 private:
  sdk::Status line(std::string_view text, const std::function<bool(WatchEvent)>& take, bool& go_on);
  std::string rest_;
};

}  // namespace egw::kube
