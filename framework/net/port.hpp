// Port: the open packet sockets of one interface, for ARP and neighbour discovery. Opening one
// takes the kernel up to 20 ms (it waits for an RCU grace period), so the announcer opens them
// before they are needed. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/result.hpp"
#include "egw/net/frames.hpp"

namespace egw::net {

class Port {
 public:
  // One frame that came in. checksum_ready: see parse_ndp.
  using OnFrame = std::function<void(FrameView frame, bool checksum_ready)>;

  static Result<Port> open(unsigned index, std::string name, bool with_ndp);
  ~Port();
  Port(Port&& other) noexcept;
  Port& operator=(Port&& other) noexcept;

  [[nodiscard]] int arp_fd() const { return arp_fd_; }
  [[nodiscard]] int ndp_fd() const { return ndp_fd_; }  // -1: opened without
  [[nodiscard]] const std::string& name() const { return name_; }

  // Hands over at most `limit` waiting frames of a socket; false: none is left.
  bool receive(int fd, int limit, const OnFrame& on_frame);
  // 0 or an errno value; EAGAIN and ENOBUFS: try again later.
  int send(const Frame& frame);

  // The multicast groups (ff02::1:ffXX:XXXX) to be in: the interface lets their frames in, and MLD
  // reports make snooping switches send them here. Returns what failed, in words, or "".
  std::string set_groups(const std::set<model::Address>& groups);

 private:
  Port(unsigned index, std::string name) : index_(index), name_(std::move(name)) {}
  void close_all();
  int change_filter(const model::Address& group, bool join);
  int change_mld(const model::Address& group, bool join);

  unsigned index_ = 0;
  std::string name_;
  int arp_fd_ = -1, ndp_fd_ = -1;
  // A socket's memberships share a small memory allowance (net.core.optmem_max): more than one
  // socket.
  std::vector<int> mld_fds_;
  std::map<model::Address, int> groups_;  // joined, with the MLD socket; -1: packet filter only
};

}  // namespace egw::net
