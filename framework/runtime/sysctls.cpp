// The host's settings under /proc/sys (sysctls.hpp).
#include "egw/runtime/sysctls.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

namespace egw::runtime {
namespace {

std::string trimmed(std::string text) {
  const auto last = text.find_last_not_of(" \t\r\n");
  text.erase(last == std::string::npos ? 0 : last + 1);
  return text;
}

std::optional<std::string> read_value(const std::filesystem::path& file) {
  std::ifstream in(file);
  if (!in) return std::nullopt;
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  return trimmed(std::move(text));
}

// 0 or an errno value. One write(2): procfs takes a value whole or not at all. A container's
// /proc/sys is read-only: there the host's, mounted below /host, is written (the Helm chart does).
int write_value(const std::filesystem::path& file, const std::string& value) {
  int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0 && errno == EROFS) {
    fd = ::open(("/host" + file.string()).c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return EROFS;
  }
  if (fd < 0) return errno;
  const ssize_t written = ::write(fd, value.data(), value.size());
  const int error = written == static_cast<ssize_t>(value.size()) ? 0 : errno;
  ::close(fd);
  return error;
}

std::string trouble(int error) {
  if (error != EROFS) return "errno " + std::to_string(error);
  return "/proc/sys is read-only here: mount the host's /proc/sys/net at /host/proc/sys/net";
}

// A plugin's word is not taken for a path: below the root, no steps upwards.
bool is_key(const std::string& key) {
  return !key.empty() && key.front() != '/' && key.find("..") == std::string::npos &&
         key.find('\0') == std::string::npos;
}

nlohmann::json load_record(const std::filesystem::path& record) {
  std::ifstream in(record);
  if (!in) return nlohmann::json::object();
  auto document = nlohmann::json::parse(in, nullptr, false);
  return document.is_object() ? document : nlohmann::json::object();
}

}  // namespace

Result<void> write_file(const std::filesystem::path& file, const std::string& text, bool durable) {
  const std::string temporary = file.string() + ".new";
  const int fd =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return fail(Errc::kUnavailable, temporary, "cannot be written", errno);
  std::string_view rest = text;
  int error = 0;
  while (!rest.empty() && error == 0) {
    const ssize_t written = ::write(fd, rest.data(), rest.size());
    if (written >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (error == 0 && durable && ::fsync(fd) != 0) error = errno;
  ::close(fd);
  if (error == 0 && ::rename(temporary.c_str(), file.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary.c_str());
    return fail(Errc::kUnavailable, file.string(), "cannot be written", error);
  }
  return {};
}

Sysctls::Sysctls(std::filesystem::path root, std::filesystem::path record, bool manage_forwarding,
                 Logger& log)
    : root_(std::move(root)),
      record_(std::move(record)),
      manage_forwarding_(manage_forwarding),
      log_(log) {}

std::vector<SysctlProblem> Sysctls::apply(const std::vector<host::SysctlNeed>& needs,
                                          bool complete) {
  std::vector<SysctlProblem> problems;
  for (const auto& need : needs) {
    if (!is_key(need.key)) {
      problems.push_back({need.key, "is not a key under /proc/sys: the datapath plugin is wrong"});
      continue;
    }
    const auto file = root_ / need.key;
    const auto present = read_value(file);
    if (!present) {
      if (complete) {
        problems.push_back({need.key, "does not exist on this kernel; it is needed: " + need.why});
      }
      continue;
    }
    if (*present == need.value) continue;
    if (need.forwarding && !manage_forwarding_) {
      problems.push_back({need.key, "is " + *present + " and must be " + need.value + " (" +
                                        need.why +
                                        "): set it, or allow it with feature.manageForwarding"});
      continue;
    }
    if (auto kept = remember(need.key, *present, need.value); !kept) {
      problems.push_back({need.key, "not changed, because its old value cannot be recorded: " +
                                        kept.error().to_string()});
      continue;
    }
    if (const int error = write_value(file, need.value); error != 0) {
      problems.push_back({need.key, "is " + *present + " and cannot be set to " + need.value +
                                        " (" + need.why + "): " + trouble(error)});
      continue;
    }
    log_.info("sysctl changed",
              {{"key", need.key}, {"from", *present}, {"to", need.value}, {"why", need.why}});
  }
  return problems;
}

Result<void> Sysctls::remember(const std::string& key, const std::string& was,
                               const std::string& ours) {
  auto record = load_record(record_);
  if (record.contains(key)) {
    if (record[key].value("ours", "") == ours) return {};
    record[key]["ours"] = ours;
  } else {
    record[key] = {{"was", was}, {"ours", ours}};
  }
  return write_file(record_, record.dump(1));
}

Result<void> Sysctls::restore() {
  const auto record = load_record(record_);
  std::string left;
  for (const auto& [key, values] : record.items()) {
    if (!is_key(key) || !values.is_object()) continue;
    const auto file = root_ / key;
    const auto present = read_value(file);
    if (!present || *present != values.value("ours", "")) continue;  // gone, or somebody else's now
    const std::string was = values.value("was", "");
    if (const int error = write_value(file, was); error != 0) {
      left += (left.empty() ? "" : ", ") + key;
      continue;
    }
    log_.info("sysctl restored", {{"key", key}, {"to", was}});
  }
  if (!left.empty()) {
    return fail(
        Errc::kUnavailable, left,
        "cannot be restored: set it by hand, see " + record_.string() + " for the old value");
  }
  std::error_code ignored;
  std::filesystem::remove(record_, ignored);
  return {};
}

}  // namespace egw::runtime
