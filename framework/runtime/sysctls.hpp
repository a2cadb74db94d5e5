// Sysctls: writes the host's settings that a datapath needs, remembers what they were, and restores
// them at purge. Called by the agent after each apply and by run_purge.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "egw/host/datapath.hpp"
#include "egw/model/result.hpp"
#include "egw/runtime/logging.hpp"

namespace egw::runtime {

struct SysctlProblem {
  std::string key;      // "net/ipv4/ip_forward"
  std::string message;  // what is wrong and what to do
};

class Sysctls {
 public:
  // root: "/proc/sys". record: a JSON file {key: {"was": value, "ours": value}}; made when needed.
  Sysctls(std::filesystem::path root, std::filesystem::path record, bool manage_forwarding,
          Logger& log);

  // Brings the keys to the wanted values. A key that exists only once the tunnel device does is a
  // problem only if `complete`.
  std::vector<SysctlProblem> apply(const std::vector<host::SysctlNeed>& needs, bool complete);
  // Puts back what this node's agents changed, unless somebody else has changed it since. The
  // record is removed when all is done.
  Result<void> restore();

 private:
  Result<void> remember(const std::string& key, const std::string& was, const std::string& ours);

  std::filesystem::path root_, record_;
  bool manage_forwarding_;
  Logger& log_;
};

// Writes `text` to `file` so that a reader or a crash sees the old or the new content, never a
// part: a temporary file, fsync, rename. Mode 0600. durable false, without fsync: for what counts
// until the next boot only.
[[nodiscard]] Result<void> write_file(const std::filesystem::path& file, const std::string& text,
                                      bool durable = true);

}  // namespace egw::runtime
