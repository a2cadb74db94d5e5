// What comes over a watch of the Kubernetes API: lines with an event each, cut anywhere. The first
// byte says how long the pieces are.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "kube/answer.hpp"
#include "kube/watch_events.hpp"

using namespace egw;
using fuzz::require;

namespace {

struct Heard {
  std::vector<kube::WatchEvent> events;
  sdk::Status status;
};

Heard hear(std::string_view stream, std::size_t piece) {
  Heard out;
  kube::WatchEvents events;
  while (!stream.empty() && out.status.ok()) {
    out.status = events.feed(stream.substr(0, piece), [&out](kube::WatchEvent event) {
      out.events.push_back(std::move(event));
      return true;
    });
    stream.remove_prefix(std::min(piece, stream.size()));
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view stream = fuzz::text(data + 1, size - 1);
  const Heard whole = hear(stream, size), cut = hear(stream, data[0] + 1U);
  require(whole.status.code == cut.status.code, "pieces end as the whole does");
  require(whole.events.size() == cut.events.size(), "pieces bring what the whole brings");
  for (std::size_t i = 0; i < whole.events.size(); ++i) {
    const kube::WatchEvent& event = whole.events[i];
    require(event.type == cut.events[i].type && event.object == cut.events[i].object,
            "and the same");
    require(event.object.is_object(), "an event has an object");
    (void)kube::revision_of(event.object);
    const sdk::Status status = kube::status_of(500, event.object, {"watch", "things", ""});
    require(status.text().find('\n') == std::string::npos, "one line");
  }
  require(whole.status.ok() || whole.status.code == sdk::Code::kInternal, "how it ends");
  require(whole.status.text().find('\n') == std::string::npos, "one line");
  return 0;
}
