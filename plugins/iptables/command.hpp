// Runs iptables' programs: by absolute path, with an argument list, without a shell, with an
// environment of its own, bounded in time and in what it says. Called by xtables.cpp.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace egw::iptables {

struct Finished {
  int error = 0;    // errno: it could not be run; ETIMEDOUT: ended by us; EMSGSIZE: said too much
  int status = -1;  // exit code; 128 + the signal that ended it
  std::string out, err;
  [[nodiscard]] bool ok() const { return error == 0 && status == 0; }
  // What went wrong, in a line.
  [[nodiscard]] std::string why() const;
};

[[nodiscard]] Finished run(const std::vector<std::string>& arguments, std::string_view input,
                           std::chrono::milliseconds deadline);

}  // namespace egw::iptables
