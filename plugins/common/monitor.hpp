// Watches the kernel's change events for objects of ours that somebody else changed or removed, and
// says in a word what happened. A thread; changes that come from our own sockets are not reported.
// Neighbours, FDB entries and a device's MTU are reported by the kernel without a sender: such an
// event is a doubt, and when no change of our own is under way the kernel is asked what it holds.
// Called by datapath plugins.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "egw/sdk/datapath.hpp"
#include "netlink.hpp"
#include "rtnl.hpp"

namespace egw::common {

class Monitor {
 public:
  struct Watched {
    std::string device;  // the tunnel device
    int index = 0;
    std::uint32_t mtu = 0;  // the device's
    std::uint32_t route_table = 0;
    std::string nft_table;          // its name in every family; empty: nftables is not watched
    std::set<std::uint32_t> ports;  // netlink ports of our own sockets
    std::map<sdk::Mac, sdk::Address> fdb;         // MAC -> underlay
    std::map<sdk::Address, sdk::Mac> neighbours;  // tunnel address -> MAC
  };
  // drifted: called from the monitor's thread, once for what lay ready to be read.
  explicit Monitor(std::function<void(const std::string& what)> drifted);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // A change of our own, from before watch() until the kernel agrees with it.
  class OwnChange {
   public:
    explicit OwnChange(Monitor& monitor);
    ~OwnChange();
    OwnChange(const OwnChange&) = delete;
    OwnChange& operator=(const OwnChange&) = delete;

   private:
    Monitor& monitor_;
  };

  // Replaces what is watched. Call before the kernel is changed accordingly.
  void watch(Watched watched);
  // Off during a change of our own that is so big that the events would cost more than it does.
  void listen_to_nftables(bool on);

 private:
  void run();
  void read(NetlinkSocket& socket, bool netfilter);
  void judge_route(const nlmsghdr* h, std::string& what);
  void judge_netfilter(const nlmsghdr* h, std::string& what);
  void doubt_neighbour(const nlmsghdr* h);
  void settle_doubts(NetlinkSocket& socket);
  [[nodiscard]] std::string judge(const Neighbour& doubt, const std::set<Neighbour>& held) const;
  void wake() const;

  std::function<void(const std::string&)> drifted_;
  mutable std::mutex mutex_;
  Watched watched_;
  int event_ = -1;
  bool stop_ = false;
  bool changing_ = false;
  std::uint64_t changes_ = 0;
  std::set<Neighbour> doubts_;  // of the monitor's thread
  bool mtu_doubted_ = false;    // likewise
  int nftables_socket_ = -1;
  std::string pending_;  // nftables changes seen since the last NEWGEN
  std::thread thread_;
};

}  // namespace egw::common
