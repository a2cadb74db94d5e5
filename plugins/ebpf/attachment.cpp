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
#include <functional>
#include <utility>
#include <vector>

#include "common/rtnl.hpp"
#include "egw/sdk/status.hpp"
#include "folder.hpp"

namespace egw::ebpf {
namespace {

// linux/bpf.h of 6.6; older headers do not have them.
constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);
constexpr std::uint32_t kBefore = 1U << 3;  // BPF_F_BEFORE; without another program: all of them
// Of our classifiers: before those that are there and whose priority the kernel has chosen (0xc000;
// what comes later without one gets ours less one), and not in the way of those who want one of the
// first. The handle tells them from others'.
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

std::uint32_t id_of_link(int link) {
  bpf_link_info info{};
  std::uint32_t size = sizeof(info);
  return bpf_obj_get_info_by_fd(link, &info, &size) == 0 ? info.id : 0;
}

// What is at one side of an interface, in the order in which packets meet it; BPF_PROG_QUERY of
// linux/bpf.h of 6.6.
struct Query {
  std::uint32_t interface, attach_type, flags, attach_flags;
  std::uint64_t programs;
  std::uint32_t count, pad;
  std::uint64_t program_flags, links, link_flags, revision;
};

struct Placed {
  std::uint32_t program, link;  // 0: attached without a link
};

std::vector<Placed> placed_at(int interface, Side side) {
  std::array<std::uint32_t, 64> programs{}, links{};  // as many as the kernel allows
  Query query{};
  query.interface = static_cast<std::uint32_t>(interface);
  query.attach_type = type_of(side);
  query.programs = reinterpret_cast<std::uintptr_t>(programs.data());
  query.links = reinterpret_cast<std::uintptr_t>(links.data());
  query.count = programs.size();
  std::vector<Placed> out;
  if (::syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof(query)) != 0) return out;
  for (std::uint32_t i = 0; i < query.count && i < programs.size(); ++i) {
    out.push_back({programs[i], links[i]});
  }
  return out;
}

// Filters of all kinds at one side of an interface: their priorities. False: the kernel did not
// list them all.
bool each_filter(common::NetlinkSocket& socket, int interface, Side side,
                 const std::function<void(std::uint32_t)>& filter) {
  tcmsg header{};
  header.tcm_family = AF_UNSPEC;
  header.tcm_ifindex = interface;
  header.tcm_parent =
      TC_H_MAKE(TC_H_CLSACT, side == Side::kIngress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
  common::Message m(RTM_GETTFILTER, NLM_F_DUMP);
  m.header(header);
  return socket.dump(m, [&](const nlmsghdr* answer) {
    filter(TC_H_MAJ(static_cast<const tcmsg*>(NLMSG_DATA(answer))->tcm_info) >> 16);
  }) == 0;
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
  const int old = bpf_obj_get(pin_.c_str());
  // Else it is of an interface that has gone, whose number is another's now.
  const bool here = old >= 0 && interface_of(old) == static_cast<std::uint32_t>(interface_);
  link_ = old;
  if (here && first_link() && bpf_link_update(link_, program, nullptr) == 0) return;
  bpf_link_create_opts opts{};
  opts.sz = sizeof(opts);
  opts.flags = kBefore;
  link_ = bpf_link_create(program, interface_, type_of(side_), &opts);
  const int error = errno;
  if (link_ < 0 && here && bpf_link_update(old, program, nullptr) == 0) {
    link_ = old;  // better late than not at all
    return;
  }
  if (old >= 0) ::unlink(pin_.c_str());
  if (link_ >= 0 && here) bpf_link_detach(old);  // the new one sees its packets
  if (old >= 0) ::close(old);
  if (link_ < 0) {
    throw sdk::Failure(sdk::Code::kUnavailable, "the program cannot be attached (tcx)",
                       name_of(interface_), error);
  }
  // Where that fails, it steers as long as this process lives, and pin_again() says what is wrong.
  (void)bpf_obj_pin(link_, pin_.c_str());
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

bool Attachment::first_link() const {
  const std::vector<Placed> placed = placed_at(interface_, side_);
  return !placed.empty() && placed.front().link == id_of_link(link_);
}

bool Attachment::first(common::NetlinkSocket& socket) const {
  if (method_ == Method::kTcx) return first_link();
  bool found = false;
  each_filter(socket, interface_, side_,
              [&](std::uint32_t priority) { found = found || priority < kPriority; });
  return !found;
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

void remove_empty_clsact(common::NetlinkSocket& socket, int interface) {
  bool any = false;
  for (const Side side : {Side::kIngress, Side::kEgress}) {
    any = !each_filter(socket, interface, side, [&](std::uint32_t) { any = true; }) || any;
  }
  if (any) return;  // or not known: somebody else's filters would go with it
  bpf_tc_hook hook = hook_of(interface, Side::kIngress);
  hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  bpf_tc_hook_destroy(&hook);
}

void detach_everywhere(common::NetlinkSocket& socket, const std::set<std::uint32_t>& but) {
  for (const common::Link& link : common::all_links(socket)) {
    bool had = false;
    for (const Side side : {Side::kIngress, Side::kEgress}) {
      for (const auto& [program, id] : placed_at(link.index, side)) {
        if (but.count(program) != 0) continue;
        const int ours = is_ours(program, false) ? bpf_link_get_fd_by_id(id) : -1;
        if (ours < 0) continue;
        bpf_link_detach(ours);
        ::close(ours);
      }
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
