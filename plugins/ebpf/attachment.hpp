// A program at one side of an interface: by a tcx link where the kernel has it (6.6), else as a
// classifier of clsact. Called by kernel.cpp.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "common/netlink.hpp"

namespace egw::ebpf {

enum class Side : std::uint8_t { kIngress, kEgress };
enum class Method : std::uint8_t { kTcx, kClsact };

// Whether the kernel takes tcx links; `program` is a loaded one. Attaches to nothing that lasts.
[[nodiscard]] bool kernel_has_tcx(int program);

class Attachment {
 public:
  // Attaches, a tcx link before all others, or takes over what a former process has left at `pin`
  // and replaces its program in one step. Throws sdk::Failure; ENODEV when the interface has gone.
  Attachment(Method method, int program, int interface, Side side, std::string pin);
  ~Attachment();  // leaves the program where it is
  Attachment(Attachment&& other) noexcept;
  Attachment& operator=(Attachment&&) = delete;
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  [[nodiscard]] int interface() const { return interface_; }
  [[nodiscard]] std::uint32_t program_id() const { return program_id_; }
  // The interface is there and has the program.
  [[nodiscard]] bool alive() const;
  // No other program or filter comes before it, whose verdict might be the last. With clsact by a
  // dump of the interface's filters.
  [[nodiscard]] bool first(common::NetlinkSocket& socket) const;
  [[nodiscard]] bool first_link() const;  // with tcx
  // A tcx link is; a classifier needs no pin.
  [[nodiscard]] bool pinned() const;
  // True if it was not. Throws sdk::Failure.
  [[nodiscard]] bool pin_again() const;
  void detach();

 private:
  void attach_tcx(int program);
  void attach_clsact(int program);

  Method method_;
  int interface_;
  Side side_;
  std::string pin_;
  int link_ = -1;
  std::uint32_t program_id_ = 0;
};

// After the last filter of ours has gone from an interface: the qdisc goes unless others use it.
void remove_empty_clsact(common::NetlinkSocket& socket, int interface);

// Programs named egw_* at any interface of this network namespace but those with these ids, and our
// clsact where nobody else uses it: by either method, whoever left them.
void detach_everywhere(common::NetlinkSocket& socket, const std::set<std::uint32_t>& but = {});

}  // namespace egw::ebpf
