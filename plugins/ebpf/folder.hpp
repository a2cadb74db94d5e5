// The folder in which maps and links are pinned, so that they outlive the process: on a bpffs.
// Called by kernel.cpp and by probe.
#pragma once

#include <string>

#include "egw/sdk/status.hpp"

namespace egw::ebpf {

// Whether prepare_folder() can do what it is for. Changes nothing.
[[nodiscard]] sdk::Status check_folder(const std::string& folder);
// Makes `folder` ready to pin in; mounts bpffs where /sys/fs/bpf has none. Throws sdk::Failure, and
// leaves nothing where there is no bpffs.
void prepare_folder(const std::string& folder);

[[nodiscard]] bool is_pinned(const std::string& path);
// What `descriptor` stands for, at `path`. Throws sdk::Failure.
void pin(int descriptor, const std::string& path);

}  // namespace egw::ebpf
