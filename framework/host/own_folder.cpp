#include "egw/host/own_folder.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <string>

namespace egw::host {

Result<void> check_own_folder(const std::filesystem::path& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) {
    return fail(Errc::kInvalid, path.string(), "is no folder: check --state-dir");
  }
  if (st.st_uid != geteuid()) {
    return fail(Errc::kDenied, path.string(),
                "the state folder belongs to user " + std::to_string(st.st_uid) +
                    ", not to the one that egw runs as: chown it");
  }
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(Errc::kDenied, path.string(),
                "the state folder can be written by others: chmod go-w it");
  }
  return {};
}

}  // namespace egw::host
