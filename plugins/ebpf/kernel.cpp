#include "kernel.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <egw.skel.h>       // generated from bpf/egw.bpf.c
#include <egw_fast.skel.h>  // the same with the programs of fastPath
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "common/rtnl.hpp"
#include "folder.hpp"

namespace egw::ebpf {
namespace {

namespace fs = std::filesystem;

// How long a program may be away before it is missed, in milliseconds: for each interface two calls
// of the kernel, a microsecond each.
constexpr int kLookPause = 1000;

// The last words of what the verifier says.
std::string last_words(const std::string& log) {
  const std::size_t end = log.find('\0');
  const std::string text = log.substr(0, end);
  constexpr std::size_t kMost = 300;
  return text.size() <= kMost ? text : "..." + text.substr(text.size() - kMost);
}

}  // namespace

Loaded::Loaded(const std::string& folder, bool fast) : fast_(fast) {
  std::string wrong = load(folder);
  if (!wrong.empty() && !folder.empty() && load({}).empty()) {
    // The programs are good, so it is maps of another make: theirs go on with them until ours take
    // their place.
    object_.reset();
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    wrong = load(folder);
  }
  if (!wrong.empty()) {
    throw sdk::Failure(sdk::Code::kUnsupported, "the kernel refuses the programs: " + wrong,
                       "BPF programs", errno);
  }
  const auto map = [&](const char* name) {
    return bpf_object__find_map_fd_by_name(object_.get(), name);
  };
  maps_ = {map("endpoints6"),
           {map("classes4"), map("classes6")},
           {map("cluster4"), map("cluster6")},
           map("settings"),
           map("drops")};
  endpoints4_ = std::make_unique<EndpointTable>(map("endpoints4"));
  owners_ = std::make_unique<SharedArray>(map("owners"));
  backs_ = std::make_unique<SharedArray>(map("backs"));
  steered_ = std::make_unique<Counts>(map("steered"));
  judged_[0] = std::make_unique<Counts>(map("judged4"));
  judged_[1] = std::make_unique<Counts>(map("judged6"));
}

// "" or why not.
std::string Loaded::load(const std::string& folder) {
  std::string log(std::size_t{64} * 1024, '\0');
  bpf_object_open_opts opts{};
  opts.sz = sizeof(opts);
  opts.kernel_log_buf = log.data();
  opts.kernel_log_size = log.size();
  opts.object_name = "egw_bpf";
  libbpf_set_print(nullptr);
  std::size_t size = 0;
  const void* bytes = fast_ ? egw_fast_bpf__elf_bytes(&size) : egw_bpf__elf_bytes(&size);
  object_.reset(bpf_object__open_mem(bytes, size, &opts));
  if (object_ == nullptr) return "libbpf cannot read them";
  for (const char* name : {"steered", "judged4", "judged6"}) {
    bpf_map__set_max_entries(bpf_object__find_map_by_name(object_.get(), name),
                             EGW_IDS * possible_cpus());
  }
  if (!folder.empty()) {
    std::error_code ignored;
    fresh_ = fs::create_directories(folder, ignored);
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object_.get()) {
      bpf_map__set_pin_path(map, (folder + "/" + bpf_map__name(map)).c_str());
    }
  }
  if (bpf_object__load(object_.get()) == 0) return {};
  const int error = errno;
  object_.reset();
  errno = error;
  const std::string words = last_words(log);
  return words.empty() ? "no word of the verifier" : words;
}

bool Loaded::pinned() const {
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object_.get()) {
    const char* path = bpf_map__pin_path(map);
    if (path != nullptr && !is_pinned(path)) return false;
  }
  return true;
}

std::uint64_t Loaded::pin_again() {
  std::uint64_t made = 0;
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object_.get()) {
    const char* path = bpf_map__pin_path(map);
    if (path == nullptr || is_pinned(path)) continue;
    std::error_code ignored;  // pin() says what is wrong
    fs::create_directories(fs::path(path).parent_path(), ignored);
    pin(bpf_map__fd(map), path);
    ++made;
  }
  return made;
}

void Loaded::Close::operator()(bpf_object* object) const { bpf_object__close(object); }

namespace {

std::uint32_t in_memory(const sdk::Address& a) {
  std::uint32_t out = 0;
  std::memcpy(&out, a.bytes.data(), sizeof(out));
  return out;
}

}  // namespace

common::Elements Loaded::endpoints(common::Table t) const {
  return t == common::Table::kIp ? endpoints4_->dump()
                                 : dump(maps_.endpoints6, sizeof(egw_address6));
}

std::vector<Refused> Loaded::put(common::Table t, const Endpoints& endpoints) {
  if (t != common::Table::kIp) {
    common::Elements elements;
    for (const auto& [address, number] : endpoints) {
      elements.emplace_back(common::register_address(address), common::register_u32(number));
    }
    return ebpf::put(maps_.endpoints6, elements);
  }
  std::vector<Refused> out;
  for (const auto& [address, number] : endpoints) {
    if (!endpoints4_->put(in_memory(address), number)) {
      out.push_back({common::register_address(address), ENOSPC});
    }
  }
  return out;
}

void Loaded::remove(common::Table t, const std::vector<sdk::Address>& endpoints) {
  common::Elements elements;
  for (const sdk::Address& address : endpoints) {
    if (t == common::Table::kIp) {
      endpoints4_->remove(in_memory(address));
    } else {
      elements.emplace_back(common::register_address(address), std::string());
    }
  }
  ebpf::remove(maps_.endpoints6, elements);
}

int Loaded::program(Program which) const {
  const auto fd = [&](const char* name) {
    return bpf_program__fd(bpf_object__find_program_by_name(object_.get(), name));
  };
  switch (which) {
    case Program::kPod:
      return fd("egw_pod");
    case Program::kPodFast:
      return fd("egw_pod_fast");
    case Program::kBackFast:
      return fd("egw_back_fast");
    case Program::kTunnel:
      break;
  }
  return fd("egw_tunnel");
}

Kernel::Kernel(std::string folder, Attach attach, bool fast, sdk::DatapathHost host)
    : folder_(std::move(folder)), wish_(attach), fast_(fast), host_(host) {}

Kernel::~Kernel() {
  if (stop_ < 0) return;
  const std::uint64_t one = 1;
  (void)!::write(stop_, &one, sizeof(one));
  thread_.join();
  ::close(stop_);
}

Loaded& Kernel::load() {
  if (loaded_) return *loaded_;
  prepare_folder(folder_);
  const std::string maps = folder_ + "/maps" + std::to_string(EGW_BPF_LAYOUT);
  std::unique_ptr<Loaded> loaded;
  try {
    loaded = std::make_unique<Loaded>(maps, fast_);
  } catch (const sdk::Failure& failure) {
    if (!fast_) throw;
    host_.warn("fastPath is not possible on this kernel, packets go the host's way: " +
               failure.status().text());
    loaded = std::make_unique<Loaded>(maps, false);
  }
  const bool tcx = kernel_has_tcx(loaded->program(Loaded::Program::kPod));
  if (wish_ == Attach::kTcx && !tcx) {
    throw sdk::Failure(sdk::Code::kUnsupported, "this kernel has no tcx (it came with 6.6)",
                       "plugins.datapath.config.attach");
  }
  watch_interfaces();
  const std::scoped_lock lock(mutex_);
  method_ = wish_ == Attach::kClsact || !tcx ? Method::kClsact : Method::kTcx;
  loaded_ = std::move(loaded);
  return *loaded_;
}

void Kernel::watch_interfaces() {
  if (stop_ >= 0) return;
  stop_ = eventfd(0, EFD_CLOEXEC);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    ::close(std::exchange(stop_, -1));
    throw sdk::Failure(sdk::Code::kUnavailable,
                       "no thread can be started that would see new interfaces: raise the limit of "
                       "processes (pids)",
                       "ebpf", error.code().value());
  }
}

std::string Kernel::pin_of(int interface, Side side) const {
  return folder_ + "/links/" + (side == Side::kIngress ? "in" : "out") + std::to_string(interface);
}

sdk::Status Kernel::attach_one(int interface, Side side, Loaded::Program program) {
  const auto at = attachments_.find({interface, side});
  bool lost = false;
  if (at != attachments_.end()) {
    lost = !at->second.attachment.alive();
    if (!lost && at->second.program == program) return sdk::ok();
    // A program in place of another one replaces it in one step. What a new interface is for is not
    // known when it comes.
    if (lost) at->second.attachment.detach();
    attachments_.erase(at);
  }
  try {
    attachments_.emplace(std::pair(interface, side),
                         Placed{program, Attachment(method_, loaded_->program(program), interface,
                                                    side, pin_of(interface, side))});
    mended_.programs += lost ? 1 : 0;
  } catch (const sdk::Failure& failure) {
    if (failure.status().sys_errno != ENODEV) return failure.status();
  }
  return sdk::ok();
}

void Kernel::attach_locked() {
  faults_.clear();
  auto socket = common::NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) throw sdk::Failure(socket.status());
  using Program = Loaded::Program;
  std::map<std::pair<int, Side>, Program> wanted;
  if (tunnel_ != 0) {
    wanted[{tunnel_, Side::kEgress}] = Program::kTunnel;
    if (loaded_->fast()) wanted[{tunnel_, Side::kIngress}] = Program::kBackFast;
  }
  for (const common::Link& link : common::all_links(*socket)) {
    // What comes by a bridge has come by one of its ports, where netfilter in the bridge sees it.
    if (link.name == "lo" || link.name == skip_ || link.index == tunnel_ || link.kind == "bridge") {
      continue;
    }
    const bool fast = loaded_->fast() && link.kind == "veth";
    wanted[{link.index, Side::kIngress}] = fast ? Program::kPodFast : Program::kPod;
  }
  for (auto at = attachments_.begin(); at != attachments_.end();) {
    if (wanted.count(at->first) != 0) {
      ++at;
      continue;
    }
    at->second.attachment.detach();
    at = attachments_.erase(at);
  }
  sdk::Status of_tunnel = sdk::ok();
  for (const auto& [place, program] : wanted) {
    const sdk::Status s = attach_one(place.first, place.second, program);
    if (s.ok()) {
      tell_if_not_first(*socket, place);
      continue;
    }
    // The others shall have theirs; tried again at every look.
    faults_.insert_or_assign(s.what, s.text() +
                                         ": packets that come by it are not steered; see "
                                         "what else is attached there (tc filter show)");
    if (place.first == tunnel_) of_tunnel = s;
  }
  pin_again();
  if (!of_tunnel.ok()) throw sdk::Failure(std::move(of_tunnel));  // nothing is steered without it
}

// Where another's verdict ends the walk, ours is never asked, and the packet is a pod's without
// policy.
void Kernel::tell_if_not_first(common::NetlinkSocket& socket, const std::pair<int, Side>& place) {
  const auto at = attachments_.find(place);
  if (at == attachments_.end() || at->second.attachment.first(socket)) return;
  char name[IF_NAMESIZE] = {};
  if (if_indextoname(static_cast<unsigned>(place.first), name) == nullptr) return;
  faults_.insert_or_assign(
      name,
      std::string(name) +
          ": a tc filter or program of somebody else comes before egw's: what that one lets "
          "through by itself is not steered; see which it is (tc filter show, bpftool net), " +
          (method_ == Method::kTcx ? "and restart the agent, which puts its own first"
                                   : "and give it a preference (prio) above 49000"));
}

// Pins that somebody has removed, or a bpffs that has been unmounted: the next process would find
// nothing to go on with, and links end with this one.
void Kernel::pin_again() {
  if (pinned()) return;
  try {
    prepare_folder(folder_);
    mended_.pins += loaded_->pin_again();
    for (const auto& [place, placed] : attachments_) {
      mended_.pins += placed.attachment.pin_again() ? 1 : 0;
    }
  } catch (const sdk::Failure& failure) {
    faults_.insert_or_assign(folder_, failure.status().text());
  }
}

bool Kernel::pinned() const {
  return loaded_->pinned() &&
         std::all_of(attachments_.begin(), attachments_.end(),
                     [](const auto& a) { return a.second.attachment.pinned(); });
}

Mended Kernel::attach(int tunnel, const std::string& skip) {
  const std::scoped_lock lock(mutex_);
  tunnel_ = tunnel;
  skip_ = skip;
  attach_locked();
  if (!attached_) remove_leftovers();
  attached_ = true;
  return std::exchange(mended_, {});
}

// Of a former process: maps of another layout, links that are not wanted any more; and programs
// that it has attached by the other method, or whose links it has pinned elsewhere.
void Kernel::remove_leftovers() {
  std::error_code ignored;
  const std::string ours = "maps" + std::to_string(EGW_BPF_LAYOUT);
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename();
    if (name != ours && name != "links") fs::remove_all(entry.path(), ignored);
  }
  std::set<std::string> used;
  std::set<std::uint32_t> programs;
  for (const auto& [place, placed] : attachments_) {
    if (method_ == Method::kTcx) used.insert(pin_of(place.first, place.second));
    programs.insert(placed.attachment.program_id());
  }
  for (const auto& entry : fs::directory_iterator(folder_ + "/links", ignored)) {
    if (used.count(entry.path()) == 0) fs::remove(entry.path(), ignored);
  }
  auto socket = common::NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) throw sdk::Failure(socket.status());
  detach_everywhere(*socket, programs);
}

namespace {

// Whether interfaces or filters at one have come, gone or changed. Reads all there is.
bool read_events(const common::NetlinkSocket& socket, std::string& buffer) {
  bool change = false;
  for (;;) {
    const ssize_t n = ::recv(socket.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ENOBUFS) {
      change = true;  // some were lost
      continue;
    }
    if (n <= 0) return change;
    int rest = static_cast<int>(n);
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer.data()); nlmsg_ok(h, rest);
         h = nlmsg_next(h, &rest)) {
      const auto type = h->nlmsg_type;
      change = change || type == RTM_NEWLINK || type == RTM_DELLINK || type == RTM_NEWTFILTER ||
               type == RTM_DELTFILTER || type == RTM_DELQDISC || type == RTM_DELCHAIN;
    }
  }
}

}  // namespace

// Interfaces that come: a pod's is made before the pod has an address that anybody could steer. And
// what somebody takes away: the kernel tells of classifiers; for links and pins it is asked.
void Kernel::run() {
  auto socket = common::NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) return host_.error("ebpf: new interfaces cannot be seen: " + socket.status().text());
  for (const int group : {RTNLGRP_LINK, RTNLGRP_TC}) {
    setsockopt(socket->fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group));
  }
  std::string buffer(64UL * 1024, '\0');
  for (;;) {
    pollfd fds[2] = {{stop_, POLLIN, 0}, {socket->fd(), POLLIN, 0}};
    const int ready = ::poll(fds, 2, kLookPause);
    if (ready < 0 && errno != EINTR) return;
    if (fds[0].revents != 0) return;
    const bool change = fds[1].revents != 0 && read_events(*socket, buffer);
    if (change || ready == 0) look(change);
  }
}

void Kernel::look(bool change) {
  std::string what, fault;
  {
    const std::scoped_lock lock(mutex_);
    if (!attached_ || (!change && intact())) return;
    const Mended before = mended_;
    const auto known = faults_;
    try {
      attach_locked();
    } catch (const sdk::Failure& failure) {
      faults_.insert_or_assign(failure.status().what, failure.status().text());
    }
    for (const auto& [where, text] : faults_) {
      if (known.count(where) == 0) fault = text;
    }
    if (!fault.empty()) what = "BPF programs or pins, which are not as they should be";
    if (mended_.pins != before.pins) what = "BPF pins removed";
    if (mended_.programs != before.programs) what = "BPF program detached";
  }
  if (!fault.empty()) host_.error("ebpf: " + fault);
  if (what.empty()) return;
  if (fault.empty()) host_.warn("changed by somebody else: " + what);
  host_.drifted(what);
}

bool Kernel::intact() const {
  if (!faults_.empty() || !pinned()) return false;
  // Of classifiers the kernel tells by itself, and asking costs more.
  return method_ != Method::kTcx ||
         std::all_of(attachments_.begin(), attachments_.end(), [](const auto& a) {
           return a.second.attachment.alive() && a.second.attachment.first_link();
         });
}

std::map<std::string, std::string> Kernel::faults() {
  const std::scoped_lock lock(mutex_);
  return faults_;
}

sdk::Status Kernel::health() {
  const std::scoped_lock lock(mutex_);
  for (const auto& [place, placed] : attachments_) {
    if (placed.attachment.alive()) continue;
    return sdk::fail(sdk::Code::kUnavailable, "has lost its BPF program",
                     "interface " + std::to_string(place.first));
  }
  if (!attached_ || pinned()) return sdk::ok();
  return sdk::fail(sdk::Code::kUnavailable,
                   "BPF maps or links are not pinned there any more: steering would end with this "
                   "process; mount the bpffs again",
                   folder_);
}

std::string Kernel::method_text() const { return method_ == Method::kTcx ? "tcx" : "clsact"; }

sdk::Status Kernel::purge() {
  const std::scoped_lock lock(mutex_);
  auto socket = common::NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) return socket.status();
  // Others' are found below, for which CAP_BPF alone is not enough; ours are known.
  for (auto& [place, placed] : attachments_) placed.attachment.detach();
  if (method_ == Method::kClsact) {
    for (const auto& [place, placed] : attachments_) remove_empty_clsact(*socket, place.first);
  }
  attachments_.clear();
  faults_.clear();
  mended_ = {};
  attached_ = false;
  loaded_.reset();
  detach_everywhere(*socket);
  std::error_code error;
  fs::remove_all(folder_, error);
  if (error) {
    return sdk::fail(sdk::Code::kInternal, "the pinned maps cannot be removed", folder_,
                     error.value());
  }
  // The folder of all nodes of the machine goes with the last.
  fs::remove(fs::path(folder_).parent_path(), error);
  return sdk::ok();
}

}  // namespace egw::ebpf
