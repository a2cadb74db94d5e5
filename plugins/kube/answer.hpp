// What an HTTP answer of the API server means: the object in it, or a status with one line for the
// operator (metav1.Status, RFC 9110). Used by everything that calls the API.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "egw/sdk/status.hpp"
#include "http.hpp"

namespace egw::kube {

// What was asked for; for messages.
struct Asked {
  std::string verb;      // "get", "list", "watch", "create", "update", "update status", "delete"
  std::string resource;  // Resource::text()
  std::string object;    // "EgressPolicy default/web"; empty for lists
};

// The parsed body: an object that is not nested more than 100 levels deep. kInternal.
[[nodiscard]] sdk::Outcome<nlohmann::json> parse_object(std::string_view text);

// What somebody else wrote, for a message: at most 600 bytes, without control characters.
[[nodiscard]] std::string one_line(std::string_view text);

// ok() for a complete 2xx answer.
[[nodiscard]] sdk::Status status_of(const HttpAnswer& answer, const Asked& asked);
// The same for a metav1.Status that came in another way (an ERROR event of a watch).
[[nodiscard]] sdk::Status status_of(int code, const nlohmann::json& status, const Asked& asked);

// A write came too late: the object has changed, or is there already.
[[nodiscard]] bool another_was_faster(const sdk::Status& status);

// metadata.resourceVersion; 0: there is none.
[[nodiscard]] std::uint64_t revision_of(const nlohmann::json& object);
// A member that is a string, else "".
[[nodiscard]] std::string text_of(const nlohmann::json& object, const char* key);
// A member that is an object, else an empty one.
[[nodiscard]] const nlohmann::json& member_of(const nlohmann::json& object, const char* key);

}  // namespace egw::kube
