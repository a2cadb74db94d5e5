// The process's descriptors (descriptors.hpp).
#include "egw/runtime/descriptors.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>

namespace egw::runtime {
namespace fs = std::filesystem;

OpenDescriptors open_descriptors() {
  OpenDescriptors out;
  std::error_code error;
  for (fs::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;
    std::string target = fs::read_symlink(it->path(), gone).string();
    // "socket:[4711]", "pipe:[4711]": the number says nothing.
    if (const auto bracket = target.find(":[");
        bracket != std::string::npos && target.rfind("anon_inode", 0) != 0) {
      target.erase(bracket);
    }
    ++out.by_target[target.empty() ? "unknown" : target];
    ++out.count;
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) out.limit = limit.rlim_cur;
  return out;
}

Result<void> DescriptorWatch::look(const OpenDescriptors& now) {
  if (now.count == 0) return {};  // /proc cannot be read: nothing is known
  least_ = least_ == 0 ? now.count : std::min(least_, now.count);
  const bool grown = now.count >= least_ + kMany;
  const bool near = now.limit != 0 && now.count >= now.limit / 2;
  if (!grown && !near) return {};
  const auto most =
      std::max_element(now.by_target.begin(), now.by_target.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return fail(Errc::kUnavailable, "file descriptors",
              std::to_string(now.count) + " are open (limit " + std::to_string(now.limit) +
                  "), once " + std::to_string(least_) + " were enough; most, " +
                  std::to_string(most->second) + ", are of " + most->first +
                  ": a plugin leaks them; restart egw before none is left, and tell the plugin's "
                  "author");
}

}  // namespace egw::runtime
