// Deletes connection tracking entries that a change of policy has made wrong, on a thread of its
// own: looking through a big table takes longer than an apply may. Called by datapath plugins.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "egw/sdk/datapath.hpp"
#include "netlink.hpp"

namespace egw::common {

struct Flow {
  sdk::Address source;       // of the connection's first packet
  sdk::Address destination;  // where it really goes: after destination NAT
  sdk::Address translated;   // the source that the destination sees
  std::uint16_t zone = 0;    // of the original direction
};

struct Sweep {
  // What the kernel shall look for, where it can; neither: all entries of both families. `doomed`
  // must judge by itself.
  std::optional<sdk::Address> source, translated;
  std::function<bool(const Flow&)> doomed;
};

// Runs one sweep now. How many entries it deleted, or the errno of the dump as a
// negative number.
int sweep(NetlinkSocket& socket, const Sweep& what);

class Sweeper {
 public:
  explicit Sweeper(sdk::Host host);
  // Finishes the sweep at hand, forgets the others.
  ~Sweeper();
  Sweeper(const Sweeper&) = delete;
  Sweeper& operator=(const Sweeper&) = delete;

  void add(Sweep sweep);
  // Waits until everything added before has been done.
  void drain();
  [[nodiscard]] std::uint64_t deleted() const;

 private:
  void run();

  sdk::Host host_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Sweep> queue_;
  bool busy_ = false, stop_ = false;
  std::uint64_t deleted_ = 0;
  std::thread thread_;
};

}  // namespace egw::common
