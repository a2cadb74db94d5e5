// Uplink detection and its watch: see uplink.hpp.
#include "egw/net/uplink.hpp"

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>

#include "egw/net/interfaces.hpp"

namespace egw::net {

namespace {

constexpr std::string_view kByName = "interface=";
constexpr std::string_view kByDefaultRoute = "defaultRouteInterface";

Result<void> check_method(const std::string& method) {
  if (method == kByDefaultRoute) return {};
  if (method.rfind(kByName, 0) == 0 && method.size() > kByName.size()) return {};
  return fail(Errc::kInvalid, "tunnelDetectMethod",
              "\"" + method + "\" is not known; use defaultRouteInterface or interface=NAME");
}

bool usable(const InterfaceAddress& entry, model::Family family) {
  if (entry.address.family() != family || entry.scope != RT_SCOPE_UNIVERSE) return false;
  return (entry.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) == 0;
}

// Which source the kernel would take towards the outside through this interface. No packet is sent:
// connecting a datagram socket looks up the route only. The destinations are for documentation
// (RFC 5737, RFC 3849) and stand for "anywhere".
model::Address kernel_choice(const std::string& interface, model::Family family) {
  const bool v4 = family == model::Family::kV4;
  const int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return {};
  sockaddr_storage storage{};
  socklen_t length = 0;
  if (v4) {
    auto* address = reinterpret_cast<sockaddr_in*>(&storage);
    address->sin_family = AF_INET;
    address->sin_port = htons(9);
    address->sin_addr.s_addr = htonl(0xc0000201);  // 192.0.2.1
    length = sizeof *address;
  } else {
    auto* address = reinterpret_cast<sockaddr_in6*>(&storage);
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(9);
    const std::uint8_t outside[16] = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    std::memcpy(&address->sin6_addr, outside, sizeof outside);
    length = sizeof *address;
  }
  model::Address out;
  if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface.c_str(),
                 static_cast<socklen_t>(interface.size())) == 0 &&
      connect(fd, reinterpret_cast<sockaddr*>(&storage), length) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) == 0) {
    if (v4) {
      std::array<std::uint8_t, 4> raw{};
      std::memcpy(raw.data(), &reinterpret_cast<sockaddr_in*>(&storage)->sin_addr, raw.size());
      out = model::Address::v4(raw);
    } else {
      std::array<std::uint8_t, 16> raw{};
      std::memcpy(raw.data(), &reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr, raw.size());
      out = model::Address::v6(raw);
    }
  }
  close(fd);
  return out;
}

// What the kernel says; without a route (link down) what it said before, if the interface still has
// it; else the first that it may be.
model::Address preferred(const Interface& interface, model::Family family,
                         const model::Address& before) {
  const auto has = [&](const model::Address& address) {
    return address && std::any_of(interface.addresses.begin(), interface.addresses.end(),
                                  [&](const auto& entry) {
                                    return entry.address == address && usable(entry, family);
                                  });
  };
  if (const auto chosen = kernel_choice(interface.name, family); has(chosen)) return chosen;
  if (has(before)) return before;
  const InterfaceAddress* best = nullptr;
  for (const auto& entry : interface.addresses) {
    if (!usable(entry, family)) continue;
    const auto rank = [](const InterfaceAddress& a) {
      return a.flags & (IFA_F_SECONDARY | IFA_F_DEPRECATED);  // SECONDARY is TEMPORARY for IPv6
    };
    if (best == nullptr || rank(entry) < rank(*best)) best = &entry;
  }
  return best == nullptr ? model::Address{} : best->address;
}

const Interface* pick(const Interfaces& interfaces, const std::string& method,
                      const UplinkState& before) {
  if (method.rfind(kByName, 0) == 0) return interfaces.find(method.substr(kByName.size()));
  for (const auto& route : interfaces.default_routes()) {
    if (const auto* found = interfaces.find(route.index)) return found;
  }
  // The default route goes with its link: while the interface is there it stays the uplink.
  if (before.index != 0) {
    if (const auto* found = interfaces.find(before.index)) return found;
  }
  return before.name.empty() ? nullptr : interfaces.find(before.name);
}

UplinkState look(const Interfaces& interfaces, const std::string& method,
                 const UplinkState& before) {
  UplinkState now;
  const auto* interface = pick(interfaces, method, before);
  if (interface == nullptr) {
    now.name = method.rfind(kByName, 0) == 0 ? method.substr(kByName.size()) : before.name;
    return now;
  }
  now.name = interface->name;
  now.index = interface->index;
  now.present = true;
  now.carrier = interface->carrier();
  now.mac = interface->mac;
  now.mtu = interface->mtu;
  const bool same = before.index == interface->index;
  now.ipv4 = preferred(*interface, model::Family::kV4, same ? before.ipv4 : model::Address{});
  now.ipv6 = preferred(*interface, model::Family::kV6, same ? before.ipv6 : model::Address{});
  return now;
}

}  // namespace

struct UplinkWatch::Impl {
  std::string method;
  std::function<void(const UplinkState&)> on_change;
  std::unique_ptr<Interfaces> interfaces;
  int stop_fd = -1;
  std::thread thread;

  ~Impl() {
    if (thread.joinable()) {
      const std::uint64_t one = 1;
      // An eventfd takes 2^64-2 of these before it blocks.
      [[maybe_unused]] const auto written = write(stop_fd, &one, sizeof one);
      thread.join();
    }
    if (stop_fd >= 0) close(stop_fd);
  }

  void run() {
    auto state = look(*interfaces, method, {});
    on_change(state);
    pollfd waits[2] = {{interfaces->fd(), POLLIN, 0}, {stop_fd, POLLIN, 0}};
    bool again = false;
    for (;;) {
      if (poll(waits, 2, again ? 0 : -1) < 0 && errno != EINTR) return;
      if (waits[1].revents != 0) return;
      if (waits[0].revents == 0 && !again) continue;
      auto changed = interfaces->read();
      again = !changed;
      if (!changed) {  // the kernel is short of memory: try again, but not at once
        poll(&waits[1], 1, 100);
        continue;
      }
      if (!*changed) continue;
      auto now = look(*interfaces, method, state);
      if (now == state) continue;
      state = std::move(now);
      on_change(state);
    }
  }
};

UplinkWatch::UplinkWatch() : impl_(std::make_unique<Impl>()) {}
UplinkWatch::~UplinkWatch() = default;

Result<std::unique_ptr<UplinkWatch>> UplinkWatch::start(
    std::string method, std::function<void(const UplinkState&)> on_change) {
  if (auto checked = check_method(method); !checked) return tl::unexpected(checked.error());
  auto interfaces = Interfaces::open();
  if (!interfaces) return tl::unexpected(interfaces.error());
  std::unique_ptr<UplinkWatch> watch(new UplinkWatch);
  auto& impl = *watch->impl_;
  impl.method = std::move(method);
  impl.on_change = std::move(on_change);
  impl.interfaces = std::move(*interfaces);
  impl.stop_fd = eventfd(0, EFD_CLOEXEC);
  if (impl.stop_fd < 0) return fail(Errc::kUnavailable, "uplink watch", "no eventfd", errno);
  impl.thread = std::thread([&impl] { impl.run(); });
  return watch;
}

}  // namespace egw::net
