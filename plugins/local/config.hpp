// Configuration of the two plugins of this folder, read from the JSON that the host has checked
// against the schemas below; what a schema cannot say is checked here.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace egw::local {

inline constexpr std::string_view kDefaultPath = "/var/lib/egw/egw.db";

struct StoreConfig {
  std::string path{kDefaultPath};
  std::string gate;
  std::uint64_t kept_revisions = 10'000;
};

struct ElectionConfig {
  std::string path{kDefaultPath};
  std::string gate;
  std::chrono::milliseconds stamp_timeout{15'000};
};

// Empty text: all defaults. Throw sdk::Failure (kInvalid) naming the key.
[[nodiscard]] StoreConfig parse_store_config(std::string_view json);
[[nodiscard]] ElectionConfig parse_election_config(std::string_view json);

inline constexpr std::string_view kStoreSchema = R"json({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "path": {
      "type": "string", "pattern": "^/", "maxLength": 4000,
      "description": "Database file, shared by all egw processes of this machine; made if missing."
    },
    "gate": {
      "type": "string", "pattern": "^(/.*)?$", "maxLength": 4000,
      "description": "While this file does not exist, this process is cut off from the store. Empty: never."
    },
    "keptRevisions": {
      "type": "integer", "minimum": 10, "maximum": 1000000,
      "description": "Length of the change log; a watcher that is further behind reads everything again."
    }
  }
})json";

inline constexpr std::string_view kElectionSchema = R"json({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "path": {
      "type": "string", "pattern": "^/", "maxLength": 4000,
      "description": "Database file of the local state store; the lock file lies beside it."
    },
    "gate": {
      "type": "string", "pattern": "^(/.*)?$", "maxLength": 4000,
      "description": "While this file does not exist, this process is cut off from the store. Empty: never."
    },
    "stampTimeout": {
      "type": "number", "minimum": 0.2, "maximum": 3600,
      "description": "Seconds after which a leader that shows no sign of life is succeeded although it holds the lock."
    }
  }
})json";

}  // namespace egw::local
