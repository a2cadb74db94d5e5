#include "folder.hpp"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>

namespace egw::ebpf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBpffs = "/sys/fs/bpf";
constexpr const char* kWhatToDo =
    "set plugins.datapath.config.pinPath to a folder of a bpffs that can be written to";

bool is_bpffs(const fs::path& path) {
  struct statfs s {};
  return ::statfs(path.c_str(), &s) == 0 && static_cast<std::uint64_t>(s.f_type) == BPF_FS_MAGIC;
}

// Below the usual place, which has no bpffs yet.
bool wants_mount(const fs::path& folder) {
  const auto inside = folder.lexically_relative(kBpffs);
  return !inside.empty() && *inside.begin() != ".." && !is_bpffs(kBpffs);
}

bool may_mount() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  return ::syscall(SYS_capget, &header, sets.data()) == 0 &&
         (sets[0].effective & (1U << CAP_SYS_ADMIN)) != 0;
}

sdk::Status no_mount(int error) {
  return sdk::fail(sdk::Code::kUnavailable,
                   std::string("has no bpffs, and none can be mounted: mount one there (mount -t "
                               "bpf bpf /sys/fs/bpf), or ") +
                       kWhatToDo,
                   std::string(kBpffs), error);
}

}  // namespace

sdk::Status check_folder(const std::string& folder) {
  fs::path there = fs::path(folder).lexically_normal();
  if (wants_mount(there)) {
    // The kernel makes this folder if it has bpffs.
    if (::access(std::string(kBpffs).c_str(), F_OK) != 0) return no_mount(errno);
    return may_mount() ? sdk::ok() : no_mount(EPERM);
  }
  std::error_code ignored;
  while (!fs::exists(there, ignored) && there.has_relative_path()) there = there.parent_path();
  if (!is_bpffs(there) || !fs::is_directory(there, ignored)) {
    return sdk::fail(sdk::Code::kUnavailable, std::string("is no folder of a bpffs: ") + kWhatToDo,
                     folder);
  }
  if (::faccessat(AT_FDCWD, there.c_str(), W_OK | X_OK, AT_EACCESS) == 0) return sdk::ok();
  const int error = errno;
  return sdk::fail(sdk::Code::kUnavailable,
                   "cannot be written to: " +
                       std::string(error == EROFS ? "mount its bpffs read-write, or " : "") +
                       kWhatToDo,
                   there.string(), error);
}

void prepare_folder(const std::string& folder) {
  if (sdk::Status s = check_folder(folder); !s.ok()) throw sdk::Failure(std::move(s));
  if (wants_mount(fs::path(folder).lexically_normal()) &&
      ::mount("bpf", std::string(kBpffs).c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0700") != 0) {
    throw sdk::Failure(no_mount(errno));
  }
  std::error_code error;
  fs::create_directories(fs::path(folder) / "links", error);
  if (error) {
    throw sdk::Failure(sdk::Code::kUnavailable,
                       std::string("no folder can be made there: ") + kWhatToDo, folder,
                       error.value());
  }
}

bool is_pinned(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

void pin(int descriptor, const std::string& path) {
  if (bpf_obj_pin(descriptor, path.c_str()) == 0) return;
  throw sdk::Failure(sdk::Code::kUnavailable,
                     "nothing can be pinned there, and the next process will find nothing to go on "
                     "with: mount the bpffs again",
                     path, errno);
}

}  // namespace egw::ebpf
