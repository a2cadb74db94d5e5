#include "attachment.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/rtnl.hpp"
#include "egw/sdk/status.hpp"
#include "folder.hpp"

namespace egw::ebpf {
namespace {

// linux/bpf.h of 6.6; older headers do not have them.
constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);
// Of our classifiers: late, so that others' verdicts count; the handle tells them from others'.
constexpr std::uint32_t kPriority = 49000, kHandle = 0x656777;

bpf_attach_type type_of(Side side) { return side == Side::kIngress ? kTcxIngress : kTcxEgress; }

std::string name_of(int interface) {
  char name[IF_NAMESIZE] = {};
  return if_indextoname(static_cast<unsigned>(interface), name) != nullptr
             ? name
             : "interface " + std::to_string(interface);
}

bpf_tc_hook hook_of(int interface, Side side) {
  bpf_tc_hook hook{};
  hook.sz = sizeof(hook);
  hook.ifindex = interface;
  hook.attach_point = side == Side::kIngress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return hook;
}

bpf_tc_opts options() {
  bpf_tc_opts opts{};
  opts.sz = sizeof(opts);
  opts.handle = kHandle;
  opts.priority = kPriority;
  return opts;
}

std::uint32_t id_of(int program) {
  bpf_prog_info info{};
  std::uint32_t size = sizeof(info);
  return bpf_obj_get_info_by_fd(program, &info, &size) == 0 ? info.id : 0;
}

// The interface of a tcx link: bpf_link_info's first word after the program's id. 0: gone.
std::uint32_t interface_of(int link) {
  bpf_link_info info{};
  std::uint32_t size = sizeof(info);
  return bpf_obj_get_info_by_fd(link, &info, &size) == 0 ? info.xdp.ifindex : 0;
}

// unseen: what is said of a program that may not be looked at, for which CAP_BPF is not enough.
bool is_ours(std::uint32_t program_id, bool unseen) {
  const int fd = bpf_prog_get_fd_by_id(program_id);
  if (fd < 0) return unseen && errno == EPERM;
  bpf_prog_info info{};
  std::uint32_t size = sizeof(info);
  const bool ours =
      bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && std::strncmp(info.name, "egw_", 4) == 0;
  ::close(fd);
  return ours;
}

}  // namespace

bool kernel_has_tcx(int program) {
  // No such interface: ENODEV from a kernel that knows tcx, EINVAL from one that does not.
  const int link = bpf_link_create(program, 0x7fffffff, kTcxIngress, nullptr);
  if (link >= 0) ::close(link);
  return link >= 0 || errno == ENODEV;
}

Attachment::Attachment(Method method, int program, int interface, Side side, std::string pin)
    : method_(method), interface_(interface), side_(side), pin_(std::move(pin)) {
  if (method_ == Method::kTcx) {
    attach_tcx(program);
  } else {
    attach_clsact(program);
  }
  program_id_ = id_of(program);
}

Attachment::Attachment(Attachment&& other) noexcept
    : method_(other.method_),
      interface_(other.interface_),
      side_(other.side_),
      pin_(std::move(other.pin_)),
      link_(std::exchange(other.link_, -1)),
      program_id_(other.program_id_) {}

Attachment::~Attachment() {
  if (link_ >= 0) ::close(link_);
}

void Attachment::attach_tcx(int program) {
  link_ = bpf_obj_get(pin_.c_str());
  if (link_ >= 0 && interface_of(link_) == static_cast<std::uint32_t>(interface_) &&
      bpf_link_update(link_, program, nullptr) == 0) {
    return;
  }
  if (link_ >= 0) {
    // Of an interface that has gone; its number is another's now.
    ::close(link_);
    ::unlink(pin_.c_str());
  }
  link_ = bpf_link_create(program, interface_, type_of(side_), nullptr);
  if (link_ < 0) {
    throw sdk::Failure(sdk::Code::kUnavailable, "the program cannot be attached (tcx)",
                       name_of(interface_), errno);
  }
  if (bpf_obj_pin(link_, pin_.c_str()) != 0) {
    const int error = errno;
    ::close(std::exchange(link_, -1));
    throw sdk::Failure(sdk::Code::kUnavailable, "the program's link cannot be pinned", pin_, error);
  }
}

void Attachment::attach_clsact(int program) {
  bpf_tc_hook hook = hook_of(interface_, side_);
  int r = bpf_tc_hook_create(&hook);
  if (r == 0 || r == -EEXIST) {
    bpf_tc_opts opts = options();
    opts.prog_fd = program;
    opts.flags = BPF_TC_F_REPLACE;
    r = bpf_tc_attach(&hook, &opts);
  }
  if (r == 0) return;
  throw sdk::Failure(sdk::Code::kUnavailable, "the program cannot be attached (clsact)",
                     name_of(interface_), -r);
}

bool Attachment::alive() const {
  if (method_ == Method::kTcx) {
    return interface_of(link_) == static_cast<std::uint32_t>(interface_);
  }
  bpf_tc_hook hook = hook_of(interface_, side_);
  bpf_tc_opts opts = options();
  return bpf_tc_query(&hook, &opts) == 0 && opts.prog_id == program_id_;
}

bool Attachment::pinned() const { return method_ != Method::kTcx || is_pinned(pin_); }

bool Attachment::pin_again() const {
  if (pinned()) return false;
  pin(link_, pin_);
  return true;
}

void Attachment::detach() {
  if (method_ == Method::kTcx) {
    ::unlink(pin_.c_str());
    bpf_link_detach(link_);
    ::close(std::exchange(link_, -1));
    return;
  }
  bpf_tc_hook hook = hook_of(interface_, side_);
  bpf_tc_opts opts = options();
  bpf_tc_detach(&hook, &opts);
}

namespace {

// BPF_PROG_QUERY of linux/bpf.h of 6.6.
struct Query {
  std::uint32_t interface, attach_type, flags, attach_flags;
  std::uint64_t programs;
  std::uint32_t count, pad;
  std::uint64_t program_flags, links, link_flags, revision;
};

// tcx links of ours at an interface of this network namespace, whoever holds them.
void detach_links(int interface, Side side, const std::set<std::uint32_t>& but) {
  std::array<std::uint32_t, 64> programs{}, links{};
  Query query{};
  query.interface = static_cast<std::uint32_t>(interface);
  query.attach_type = type_of(side);
  query.programs = reinterpret_cast<std::uintptr_t>(programs.data());
  query.links = reinterpret_cast<std::uintptr_t>(links.data());
  query.count = programs.size();
  if (::syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof(query)) != 0) return;
  for (std::uint32_t i = 0; i < query.count && i < programs.size(); ++i) {
    if (but.count(programs[i]) != 0) continue;
    const int link = is_ours(programs[i], false) ? bpf_link_get_fd_by_id(links[i]) : -1;
    if (link < 0) continue;
    bpf_link_detach(link);
    ::close(link);
  }
}

// Filters of all kinds at both sides of an interface.
int count_filters(common::NetlinkSocket& socket, int interface) {
  int count = 0;
  for (const std::uint32_t minor : {TC_H_MIN_INGRESS, TC_H_MIN_EGRESS}) {
    tcmsg header{};
    header.tcm_family = AF_UNSPEC;
    header.tcm_ifindex = interface;
    header.tcm_parent = TC_H_MAKE(TC_H_CLSACT, minor);
    common::Message m(RTM_GETTFILTER, NLM_F_DUMP);
    m.header(header);
    socket.dump(m, [&](const nlmsghdr*) { ++count; });
  }
  return count;
}

}  // namespace

void remove_empty_clsact(common::NetlinkSocket& socket, int interface) {
  if (count_filters(socket, interface) != 0) return;
  bpf_tc_hook hook = hook_of(interface, Side::kIngress);
  hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  bpf_tc_hook_destroy(&hook);
}

void detach_everywhere(common::NetlinkSocket& socket, const std::set<std::uint32_t>& but) {
  for (const common::Link& link : common::all_links(socket)) {
    bool had = false;
    for (const Side side : {Side::kIngress, Side::kEgress}) {
      detach_links(link.index, side, but);
      bpf_tc_hook hook = hook_of(link.index, side);
      bpf_tc_opts opts = options();
      // Nobody else has our handle at our priority.
      if (bpf_tc_query(&hook, &opts) != 0 || but.count(opts.prog_id) != 0) continue;
      if (!is_ours(opts.prog_id, true)) continue;
      bpf_tc_opts gone = options();
      had = bpf_tc_detach(&hook, &gone) == 0 || had;
    }
    if (had) remove_empty_clsact(socket, link.index);
  }
}

}  // namespace egw::ebpf
