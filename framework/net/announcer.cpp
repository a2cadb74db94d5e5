// The announcer's thread: sockets, interfaces and time around EipTable. See announcer.hpp.
//
// Threads: the caller's threads and the announcer's share EipTable under one lock. Every frame is
// judged and sent under the lock, so that when set(), mute() or the claim of another gateway has
// taken effect no answer of before is still to come. Callbacks run without the lock. Sockets belong
// to the announcer's thread alone.
#include "egw/net/announcer.hpp"

#include <linux/if.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "egw/net/eip_table.hpp"
#include "egw/net/interfaces.hpp"
#include "egw/net/name_patterns.hpp"
#include "egw/net/port.hpp"

namespace egw::net {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kWarning = 2;         // egw_log_level
constexpr int kFramesPerTurn = 64;  // of one socket, before the others have their turn
constexpr std::size_t kSendsPerTurn = 32;
constexpr int kNice = -10;
constexpr milliseconds kSendAgain{5};
constexpr milliseconds kReopenAfter{1000};
constexpr milliseconds kReadAgain{100};

// Closed by the destructor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_ = -1;
};

bool link_local(const model::Address& address) {
  static const model::Prefix v6(model::Address::v6({0xfe, 0x80}), 10);
  static const model::Prefix v4(model::Address::v4({169, 254, 0, 0}), 16);
  return v6.contains(address) || v4.contains(address);
}

}  // namespace

struct Announcer::Impl {
  AnnouncerOptions options;
  OnClaim on_claim;
  OnPorts on_ports;
  Log log;
  NamePatterns exclude;
  std::unique_ptr<Interfaces> interfaces;
  std::optional<Clock::time_point> read_again;  // the interfaces, after a failure
  Fd epoll, wake_fd;
  std::map<unsigned, Port> sockets;              // by interface
  std::map<unsigned, Clock::time_point> closed;  // could not be opened: when to try again
  std::map<unsigned, std::set<model::Address>> joined;
  std::atomic<bool> stopping{false};
  std::atomic<std::uint64_t> arp_answered{0}, ndp_answered{0}, announcements{0};

  mutable std::mutex lock;
  EipTable table{options};
  bool groups_stale = false;
  std::vector<Claim> claims;  // to be told when the lock is free

  std::thread thread;

  ~Impl() { stop(); }

  Result<void> open();
  void stop();
  void wake() const;
  void run();
  void turn(const std::array<epoll_event, 16>& events, int count);
  [[nodiscard]] int wait_ms();
  [[nodiscard]] std::vector<PortInfo> eligible() const;
  void read_interfaces();
  void follow_interfaces();
  bool open_port(const PortInfo& info);
  void close_port(unsigned index);
  void join_groups();
  void receive(unsigned index, int fd);
  void on_frame(unsigned index, bool arp, FrameView frame, bool checksum_ready);
  void send_due();
  int send_one(const EipTable::Due& item);
  int announce(unsigned index, const model::Address& address);
  void tell();
};

Result<void> Announcer::Impl::open() {
  if (auto set = exclude.set(options.exclude); !set) return set;
  auto opened = Interfaces::open();
  if (!opened) return tl::unexpected(opened.error());
  interfaces = std::move(*opened);
  epoll = Fd(epoll_create1(EPOLL_CLOEXEC));
  wake_fd = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (epoll.get() < 0 || wake_fd.get() < 0) {
    return fail(Errc::kUnavailable, "announcer", "cannot open an event descriptor", errno);
  }
  for (const int fd : {wake_fd.get(), interfaces->fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return fail(Errc::kUnavailable, "announcer", "cannot wait for events", errno);
    }
  }
  // Tells at once when the capability is missing, not at the first EIP.
  if (const auto* any = interfaces->find("lo"); any != nullptr) {
    if (auto port = Port::open(any->index, any->name, false); !port) {
      return tl::unexpected(port.error());
    }
  }
  follow_interfaces();
  return {};
}

void Announcer::Impl::stop() {
  stopping = true;
  if (!thread.joinable()) return;
  wake();
  thread.join();
}

void Announcer::Impl::wake() const {
  const std::uint64_t one = 1;
  // EAGAIN: the counter is full, hence readable already.
  [[maybe_unused]] const auto written = write(wake_fd.get(), &one, sizeof one);
}

// Interfaces with a carrier on which neighbours can be asked, and that have a subnet or the default
// route: a node has hundreds of pods' devices with neither.
std::vector<PortInfo> Announcer::Impl::eligible() const {
  const auto best_default = [this](model::Family family) {
    const auto& routes = interfaces->default_routes();
    const auto found = std::find_if(routes.begin(), routes.end(),
                                    [&](const auto& route) { return route.family == family; });
    return found == routes.end() ? 0U : found->index;
  };
  const unsigned default_v4 = best_default(model::Family::kV4);
  const unsigned default_v6 = best_default(model::Family::kV6);
  std::vector<PortInfo> out;
  for (const auto& [index, interface] : interfaces->all()) {
    if (!interface.ethernet || !interface.carrier() ||
        (interface.flags & (IFF_LOOPBACK | IFF_NOARP | IFF_POINTOPOINT)) != 0) {
      continue;
    }
    PortInfo info{index, interface.name,      interface.mac,
                  {},    index == default_v4, index == default_v6};
    for (const auto& entry : interface.addresses) {
      const model::Prefix prefix(entry.address, entry.length);
      if (entry.length < entry.address.bits() && !link_local(entry.address)) {
        info.prefixes.push_back(prefix);
      }
    }
    std::sort(info.prefixes.begin(), info.prefixes.end());
    if (info.prefixes.empty() && !info.default_v4 && !info.default_v6) continue;
    if (interface.name == options.tunnel_device || exclude.match(interface.name)) continue;
    out.push_back(std::move(info));
  }
  return out;
}

bool Announcer::Impl::open_port(const PortInfo& info) {
  if (sockets.count(info.index) != 0) return true;
  const auto retry = closed.find(info.index);
  if (retry != closed.end() && Clock::now() < retry->second) return false;
  auto port = Port::open(info.index, info.name, true);
  if (!port) {
    if (retry == closed.end()) log(kWarning, port.error().to_string());
    closed[info.index] = Clock::now() + kReopenAfter;
    return false;
  }
  closed.erase(info.index);
  for (const int fd : {port->arp_fd(), port->ndp_fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  }
  sockets.emplace(info.index, std::move(*port));
  return true;
}

void Announcer::Impl::close_port(unsigned index) {
  sockets.erase(index);  // closing takes the descriptors out of the epoll set
  joined.erase(index);
}

void Announcer::Impl::follow_interfaces() {
  // A port without carrier keeps its sockets: they are needed again. One that is gone has none.
  for (const auto index : interfaces->take_removed()) {
    close_port(index);
    closed.erase(index);
  }
  auto ports = eligible();
  // One that could not be opened and is no longer wanted is not waited for.
  std::erase_if(closed, [&](const auto& entry) {
    return std::none_of(ports.begin(), ports.end(),
                        [&](const auto& info) { return info.index == entry.first; });
  });
  ports.erase(std::remove_if(ports.begin(), ports.end(),
                             [this](const auto& info) { return !open_port(info); }),
              ports.end());
  {
    const std::lock_guard guard(lock);
    table.set_ports(std::move(ports), Clock::now());
    groups_stale = true;
  }
}

void Announcer::Impl::read_interfaces() {
  const auto changed = interfaces->read();
  if (!changed) {
    if (!read_again) log(kWarning, changed.error().to_string());
    read_again = Clock::now() + kReadAgain;
    return;
  }
  read_again.reset();
  if (*changed) follow_interfaces();
}

void Announcer::Impl::join_groups() {
  std::map<unsigned, std::set<model::Address>> wanted;
  {
    const std::lock_guard guard(lock);
    if (!std::exchange(groups_stale, false)) return;
    wanted = table.groups();
  }
  for (auto& [index, groups] : wanted) {
    const auto port = sockets.find(index);
    if (port == sockets.end() || joined[index] == groups) continue;
    const auto failed = port->second.set_groups(groups);
    if (!failed.empty()) log(kWarning, failed);
    joined[index] = std::move(groups);
  }
}

int Announcer::Impl::announce(unsigned index, const model::Address& address) {
  const auto socket = sockets.find(index);
  const auto* info = table.port(index);
  if (socket == sockets.end() || info == nullptr) return 0;
  ++announcements;
  if (address.is_v6()) return socket->second.send(ndp_announcement(info->mac, address));
  const int error = socket->second.send(arp_announcement(info->mac, address));
  return error != 0 ? error : socket->second.send(arp_gratuitous_reply(info->mac, address));
}

int Announcer::Impl::send_one(const EipTable::Due& item) {
  int result = 0;
  for (const auto index : item.ports) {
    int error = 0;
    if (item.what == EipTable::Send::kAnnouncement) {
      error = announce(index, item.address);
    } else if (const auto socket = sockets.find(index); socket != sockets.end()) {
      const auto& mac = table.port(index)->mac;
      error = socket->second.send(item.address.is_v6() ? ndp_probe(mac, item.address)
                                                       : arp_probe(mac, item.address));
    }
    if (error == EAGAIN || error == ENOBUFS) result = error;
  }
  return result;
}

void Announcer::Impl::send_due() {
  const std::lock_guard guard(lock);
  for (const auto& item : table.due(Clock::now(), kSendsPerTurn)) {
    if (send_one(item) != 0) table.again(item, Clock::now() + kSendAgain);
  }
}

void Announcer::Impl::on_frame(unsigned index, bool arp, FrameView frame, bool checksum_ready) {
  const auto message = arp ? parse_arp(frame) : parse_ndp(frame, checksum_ready);
  if (!message) return;
  const std::lock_guard guard(lock);
  const auto outcome = table.on_message(index, *message, Clock::now());
  if (outcome.answer) {
    const auto& mac = table.port(index)->mac;
    const int error =
        sockets.at(index).send(arp ? arp_reply(mac, *message) : ndp_reply(mac, *message));
    if (error == 0) ++(arp ? arp_answered : ndp_answered);
  }
  if (outcome.announce) {
    for (const auto port : *table.ports_of(outcome.claim.address)) {
      announce(port, outcome.claim.address);
    }
  }
  if (outcome.tell) claims.push_back(outcome.claim);
}

void Announcer::Impl::receive(unsigned index, int fd) {
  auto& port = sockets.at(index);
  const bool arp = fd == port.arp_fd();
  port.receive(fd, kFramesPerTurn, [&](FrameView frame, bool checksum_ready) {
    on_frame(index, arp, frame, checksum_ready);
  });
}

void Announcer::Impl::tell() {
  std::vector<Claim> told;
  std::vector<std::string> warnings;
  bool news = false;
  {
    const std::lock_guard guard(lock);
    told = std::exchange(claims, {});
    warnings = table.take_warnings();
    news = table.take_news();
  }
  if (news) on_ports();
  for (const auto& warning : warnings) log(kWarning, warning);
  for (const auto& claim : told) on_claim(claim);
}

int Announcer::Impl::wait_ms() {
  auto next = TimePoint::max();
  {
    const std::lock_guard guard(lock);
    next = table.next();
  }
  for (const auto& [index, when] : closed) next = std::min(next, when);
  if (read_again) next = std::min(next, *read_again);
  if (next == TimePoint::max()) return -1;
  const auto left = std::chrono::ceil<milliseconds>(next - Clock::now()).count();
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, 60'000));
}

void Announcer::Impl::turn(const std::array<epoll_event, 16>& events, int count) {
  // Frames first: interface events may close the sockets that they are on.
  bool look = false;
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<std::size_t>(i)].data.fd;
    if (fd == interfaces->fd()) {
      look = true;
      continue;
    }
    if (fd == wake_fd.get()) {
      std::uint64_t ignored = 0;
      [[maybe_unused]] const auto size = read(fd, &ignored, sizeof ignored);
      continue;
    }
    const auto port = std::find_if(sockets.begin(), sockets.end(), [fd](const auto& entry) {
      return entry.second.arp_fd() == fd || entry.second.ndp_fd() == fd;
    });
    if (port != sockets.end()) receive(port->first, fd);
  }
  const auto now = Clock::now();
  if (look || (read_again && *read_again <= now)) read_interfaces();
  if (std::any_of(closed.begin(), closed.end(),
                  [now](const auto& entry) { return entry.second <= now; })) {
    follow_interfaces();
  }
}

void Announcer::Impl::run() {
  // Answers must not wait behind a compile; without CAP_SYS_NICE they take their turn.
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice);
  std::array<epoll_event, 16> events{};
  while (!stopping) {
    const int count =
        epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), wait_ms());
    if (stopping) break;
    turn(events, std::max(count, 0));
    join_groups();
    send_due();
    tell();
  }
}

Announcer::Announcer() : impl_(std::make_unique<Impl>()) {}
Announcer::~Announcer() = default;

Result<std::unique_ptr<Announcer>> Announcer::start(AnnouncerOptions options, OnClaim on_claim,
                                                    OnPorts on_ports, Log log) {
  std::unique_ptr<Announcer> out(new Announcer);
  auto& impl = *out->impl_;
  impl.options = std::move(options);
  impl.on_claim = std::move(on_claim);
  impl.on_ports = std::move(on_ports);
  impl.log = std::move(log);
  if (auto opened = impl.open(); !opened) return tl::unexpected(opened.error());
  impl.thread = std::thread([&impl] { impl.run(); });
  return out;
}

void Announcer::set(std::vector<AnnouncedEip> eips) {
  {
    const std::lock_guard guard(impl_->lock);
    impl_->table.set(eips, Clock::now());
    impl_->groups_stale = true;
  }
  impl_->wake();
}

void Announcer::set_gateway_macs(std::vector<model::Mac> macs) {
  const std::lock_guard guard(impl_->lock);
  impl_->table.set_gateway_macs(macs);
}

void Announcer::confirm(const model::Address& address) {
  {
    const std::lock_guard guard(impl_->lock);
    impl_->table.confirm(address, Clock::now());
  }
  impl_->wake();
}

void Announcer::mute(bool on) {
  {
    const std::lock_guard guard(impl_->lock);
    impl_->table.mute(on, Clock::now());
  }
  impl_->wake();
}

AnnouncerCounters Announcer::counters() const {
  const std::lock_guard guard(impl_->lock);
  AnnouncerCounters out;
  out.arp_answered = impl_->arp_answered;
  out.ndp_answered = impl_->ndp_answered;
  out.announcements = impl_->announcements;
  out.conflicts = impl_->table.conflicts;
  out.yielded = impl_->table.yielded;
  return out;
}

std::vector<model::Address> Announcer::silent() const {
  const std::lock_guard guard(impl_->lock);
  return impl_->table.silent();
}

std::vector<LostSubnet> Announcer::lost_subnets() const {
  const std::lock_guard guard(impl_->lock);
  return impl_->table.lost_subnets();
}

std::vector<model::Mac> Announcer::port_macs() const {
  const std::lock_guard guard(impl_->lock);
  std::set<model::Mac> macs;
  for (const PortInfo& port : impl_->table.ports()) {
    if (macs.size() < kMostMacs) macs.insert(port.mac);
  }
  return {macs.begin(), macs.end()};
}

}  // namespace egw::net
