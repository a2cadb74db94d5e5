// Configuration of the two plugins of this folder, read from the JSON that the host has checked
// against the schemas below; what a schema cannot say is checked here.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace egw::local {

inline constexpr std::string_view kDefaultPath = "/var/lib/egw/egw.db";

// Which file, and whether this process may use it now: the same for both.
struct FileConfig {
  std::string path{kDefaultPath};
  std::string gate;
};

struct StoreConfig : FileConfig {
  std::uint64_t kept_revisions = 10'000;
};

struct ElectionConfig : FileConfig {
  std::chrono::milliseconds stamp_timeout{15'000};
};

// Empty text: all defaults. Throw sdk::Failure (kInvalid) naming the key.
[[nodiscard]] StoreConfig parse_store_config(std::string_view json);
[[nodiscard]] ElectionConfig parse_election_config(std::string_view json);

// Two texts, one after the other.
template <const std::string_view& first, const std::string_view& second>
struct Joined {
  static constexpr auto kText = [] {
    std::array<char, first.size() + second.size()> text{};
    std::copy(first.begin(), first.end(), text.begin());
    std::copy(second.begin(), second.end(), text.begin() + first.size());
    return text;
  }();
  static constexpr std::string_view kView{kText.data(), kText.size()};
};

inline constexpr std::string_view kFileKeys = R"json({
  "$schema": "http://json-schema.org/draft-07/schema#",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "path": {
      "type": "string", "pattern": "^/", "maxLength": 4000, "default": "/var/lib/egw/egw.db",
      "description": "Database file, shared by all egw processes of this machine; made if missing. The lock file of the election lies beside it."
    },
    "gate": {
      "type": "string", "pattern": "^(/.*)?$", "maxLength": 4000, "default": "",
      "description": "While this file does not exist, this process is cut off from the store. Empty: never."
    },)json";

inline constexpr std::string_view kStoreKeys = R"json(
    "keptRevisions": {
      "type": "integer", "minimum": 10, "maximum": 1000000, "default": 10000,
      "description": "Length of the change log; a watcher that is further behind reads everything again."
    }
  }
})json";

inline constexpr std::string_view kElectionKeys = R"json(
    "stampTimeout": {
      "type": "number", "minimum": 0.2, "maximum": 3600, "default": 15,
      "description": "Seconds after which a leader that shows no sign of life is succeeded although it holds the lock."
    }
  }
})json";

inline constexpr std::string_view kStoreSchema = Joined<kFileKeys, kStoreKeys>::kView;
inline constexpr std::string_view kElectionSchema = Joined<kFileKeys, kElectionKeys>::kView;

}  // namespace egw::local
