#include "kernel.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <egw.skel.h>  // generated from bpf/egw.bpf.c
#include <linux/magic.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "common/rtnl.hpp"

namespace egw::ebpf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBpffs = "/sys/fs/bpf";

bool is_bpffs(const fs::path& path) {
  struct statfs s {};
  return ::statfs(path.c_str(), &s) == 0 && static_cast<std::uint64_t>(s.f_type) == BPF_FS_MAGIC;
}

// The last words of what the verifier says.
std::string last_words(const std::string& log) {
  const std::size_t end = log.find('\0');
  const std::string text = log.substr(0, end);
  constexpr std::size_t kMost = 300;
  return text.size() <= kMost ? text : "..." + text.substr(text.size() - kMost);
}

}  // namespace

void prepare_folder(const std::string& folder) {
  const fs::path path(folder);
  const auto inside = path.lexically_relative(kBpffs);
  if (!inside.empty() && *inside.begin() != ".." && !is_bpffs(kBpffs) &&
      ::mount("bpf", std::string(kBpffs).c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0700") != 0) {
    throw sdk::Failure(sdk::Code::kUnavailable,
                       "cannot be mounted: mount bpffs there, or set "
                       "plugins.datapath.config.pinPath to a folder of a bpffs",
                       std::string(kBpffs), errno);
  }
  std::error_code error;
  fs::create_directories(path / "links", error);
  if (error || !is_bpffs(path)) {
    throw sdk::Failure(sdk::Code::kUnavailable,
                       "is no folder of a bpffs: set plugins.datapath.config.pinPath to one",
                       folder, error.value());
  }
}

Loaded::Loaded(const std::string& folder, bool fast) : fast_(fast) {
  std::string wrong = load(folder);
  if (!wrong.empty() && !folder.empty()) {
    // Maps of another make: their programs go on with them until ours take their place.
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    wrong = load(folder);
  }
  if (!wrong.empty()) {
    throw sdk::Failure(sdk::Code::kUnsupported, "the kernel refuses the programs: " + wrong,
                       "BPF programs", errno);
  }
  const auto& m = skeleton_->maps;
  maps_ = {bpf_map__fd(m.endpoints6),
           {bpf_map__fd(m.classes4), bpf_map__fd(m.classes6)},
           {bpf_map__fd(m.cluster4), bpf_map__fd(m.cluster6)},
           bpf_map__fd(m.settings),
           bpf_map__fd(m.drops)};
  endpoints4_ = std::make_unique<EndpointTable>(bpf_map__fd(m.endpoints4));
  owners_ = std::make_unique<SharedArray>(bpf_map__fd(m.owners));
  backs_ = std::make_unique<SharedArray>(bpf_map__fd(m.backs));
  steered_ = std::make_unique<Counts>(bpf_map__fd(m.steered));
  judged_ = std::make_unique<Counts>(bpf_map__fd(m.judged));
}

// "" or why not.
std::string Loaded::load(const std::string& folder) {
  std::string log(std::size_t{64} * 1024, '\0');
  bpf_object_open_opts opts{};
  opts.sz = sizeof(opts);
  opts.kernel_log_buf = log.data();
  opts.kernel_log_size = log.size();
  libbpf_set_print(nullptr);
  skeleton_ = egw_bpf__open_opts(&opts);
  if (skeleton_ == nullptr) return "libbpf cannot read them";
  for (bpf_map* map : {skeleton_->maps.steered, skeleton_->maps.judged}) {
    bpf_map__set_max_entries(map, EGW_IDS * possible_cpus());
  }
  for (bpf_program* program : {skeleton_->progs.egw_pod_fast, skeleton_->progs.egw_back_fast}) {
    bpf_program__set_autoload(program, fast_);
  }
  if (!folder.empty()) {
    std::error_code ignored;
    fresh_ = fs::create_directories(folder, ignored);
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, skeleton_->obj) {
      bpf_map__set_pin_path(map, (folder + "/" + bpf_map__name(map)).c_str());
    }
  }
  if (egw_bpf__load(skeleton_) == 0) return {};
  const int error = errno;
  egw_bpf__destroy(skeleton_);
  skeleton_ = nullptr;
  errno = error;
  const std::string words = last_words(log);
  return words.empty() ? "no word of the verifier" : words;
}

Loaded::~Loaded() { egw_bpf__destroy(skeleton_); }

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
  const auto& p = skeleton_->progs;
  switch (which) {
    case Program::kPod:
      return bpf_program__fd(p.egw_pod);
    case Program::kPodFast:
      return bpf_program__fd(p.egw_pod_fast);
    case Program::kBackFast:
      return bpf_program__fd(p.egw_back_fast);
    case Program::kTunnel:
      break;
  }
  return bpf_program__fd(p.egw_tunnel);
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

std::string Kernel::pin(int interface, Side side) const {
  return folder_ + "/links/" + (side == Side::kIngress ? "in" : "out") + std::to_string(interface);
}

void Kernel::attach_one(int interface, Side side, Loaded::Program program, std::uint64_t& lost) {
  const auto at = attachments_.find({interface, side});
  if (at != attachments_.end()) {
    const bool alive = at->second.attachment.alive();
    if (alive && at->second.program == program) return;
    // A program in place of another one replaces it in one step. What a new interface is for is not
    // known when it comes.
    if (!alive) {
      ++lost;
      at->second.attachment.detach();
    }
    attachments_.erase(at);
  }
  try {
    attachments_.emplace(std::pair(interface, side),
                         Placed{program, Attachment(method_, loaded_->program(program), interface,
                                                    side, pin(interface, side))});
  } catch (const sdk::Failure& failure) {
    if (failure.status().sys_errno != ENODEV) throw;
  }
}

std::uint64_t Kernel::attach_locked() {
  std::uint64_t lost = 0;
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
  for (const auto& [place, program] : wanted) attach_one(place.first, place.second, program, lost);
  return lost;
}

std::uint64_t Kernel::attach(int tunnel, const std::string& skip) {
  const std::scoped_lock lock(mutex_);
  tunnel_ = tunnel;
  skip_ = skip;
  const std::uint64_t lost = attach_locked();
  if (!attached_) remove_leftovers();
  attached_ = true;
  return lost;
}

// Of a former process: maps of another layout, links that are not wanted any more.
void Kernel::remove_leftovers() {
  std::error_code ignored;
  const std::string ours = "maps" + std::to_string(EGW_BPF_LAYOUT);
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename();
    if (name != ours && name != "links") fs::remove_all(entry.path(), ignored);
  }
  std::set<std::string> used;
  for (const auto& [place, placed] : attachments_) used.insert(pin(place.first, place.second));
  for (const auto& entry : fs::directory_iterator(folder_ + "/links", ignored)) {
    if (used.count(entry.path()) == 0) fs::remove(entry.path(), ignored);
  }
}

// Interfaces that come: a pod's is made before the pod has an address that anybody could steer.
void Kernel::run() {
  auto socket = common::NetlinkSocket::open(NETLINK_ROUTE);
  if (!socket) return host_.error("ebpf: new interfaces cannot be seen: " + socket.status().text());
  int group = RTNLGRP_LINK;
  setsockopt(socket->fd(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group));
  std::string buffer(64UL * 1024, '\0');
  for (;;) {
    pollfd fds[2] = {{stop_, POLLIN, 0}, {socket->fd(), POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) return;
    if (fds[0].revents != 0) return;
    if (fds[1].revents == 0) continue;
    while (::recv(socket->fd(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) {
    }
    const std::scoped_lock lock(mutex_);
    if (!attached_) continue;
    try {
      if (attach_locked() != 0) host_.drifted("BPF program detached");
    } catch (const sdk::Failure& failure) {
      host_.error("ebpf: " + failure.status().text());
      host_.drifted("BPF programs not attached");
    }
  }
}

std::string Kernel::missing() {
  const std::scoped_lock lock(mutex_);
  for (const auto& [place, placed] : attachments_) {
    if (!placed.attachment.alive()) return "interface " + std::to_string(place.first);
  }
  return {};
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
