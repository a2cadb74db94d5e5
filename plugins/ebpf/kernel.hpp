// The programs and their maps in the kernel: loaded, pinned under a folder of bpffs so that they
// outlive the process, taken over from a former process, and attached to the interfaces of this
// network namespace, to new ones as they come. Called by programs.cpp; one thread of its own.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "attachment.hpp"
#include "common/netlink.hpp"
#include "egw/sdk/datapath.hpp"
#include "maps.hpp"

struct bpf_object;

namespace egw::ebpf {

struct MapSet {
  int endpoints6 = -1, classes[2] = {-1, -1}, cluster[2] = {-1, -1};
  int settings = -1, drops = -1;
};

// Loaded programs and their maps. folder: where the maps are pinned, or taken from; empty: nowhere.
class Loaded {
 public:
  // fast: with the programs of fastPath, which the kernel may not take.
  Loaded(const std::string& folder, bool fast);

  [[nodiscard]] const MapSet& maps() const { return maps_; }
  [[nodiscard]] SharedArray& owners() { return *owners_; }
  [[nodiscard]] SharedArray& backs() { return *backs_; }
  // Of one family, sorted: address -> number.
  [[nodiscard]] common::Elements endpoints(common::Table t) const;
  // Adds or replaces; what there is no room for is answered, the rest is written.
  std::vector<Refused> put(common::Table t, const Endpoints& endpoints);
  void remove(common::Table t, const std::vector<sdk::Address>& endpoints);
  [[nodiscard]] Counts& steered() { return *steered_; }
  [[nodiscard]] Counts& judged(common::Table t) { return *judged_[static_cast<std::size_t>(t)]; }
  enum class Program : std::uint8_t { kPod, kPodFast, kTunnel, kBackFast };
  [[nodiscard]] int program(Program which) const;
  [[nodiscard]] bool fast() const { return fast_; }
  // Of the maps, by their paths.
  [[nodiscard]] bool pinned() const;
  // Those that have lost their pin; how many. Throws sdk::Failure.
  std::uint64_t pin_again();
  // The maps are new, and nobody has been told so yet: they hold nothing.
  [[nodiscard]] bool take_fresh() { return std::exchange(fresh_, false); }

 private:
  std::string load(const std::string& folder);

  bool fast_, fresh_ = true;

  struct Close {
    void operator()(bpf_object* object) const;
  };
  std::unique_ptr<bpf_object, Close> object_;
  MapSet maps_;
  std::unique_ptr<SharedArray> owners_, backs_;
  std::unique_ptr<EndpointTable> endpoints4_;
  std::unique_ptr<Counts> steered_;
  std::array<std::unique_ptr<Counts>, 2> judged_;  // by family
};

enum class Attach : std::uint8_t { kAuto, kTcx, kClsact };

// What somebody else had taken away, and is there again.
struct Mended {
  std::uint64_t programs = 0, pins = 0;
};

class Kernel {
 public:
  // folder: of this node in bpffs. Changes nothing in the kernel.
  Kernel(std::string folder, Attach attach, bool fast, sdk::DatapathHost host);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  // Loads at the first call, or answers what is loaded. Throws sdk::Failure.
  Loaded& load();
  [[nodiscard]] Loaded* loaded() { return loaded_.get(); }
  // Attaches what is not attached; from now on also to interfaces that come, and whatever somebody
  // takes away. What has been mended since the last call. tunnel: the index of the tunnel device,
  // 0: none; skip: an interface by which no pod's packets come. Throws sdk::Failure.
  Mended attach(int tunnel, const std::string& skip);
  // What could not be done at the last look: an interface, or the folder, and why.
  [[nodiscard]] std::map<std::string, std::string> faults();
  [[nodiscard]] sdk::Status health();
  [[nodiscard]] std::string method_text() const;
  [[nodiscard]] bool fast() const { return loaded_ && loaded_->fast(); }
  sdk::Status purge();

 private:
  void watch_interfaces();  // by run(), on a thread
  void run();
  void look(bool change);
  [[nodiscard]] bool intact() const;
  void attach_locked();
  void remove_leftovers();
  sdk::Status attach_one(int interface, Side side, Loaded::Program program);
  void tell_if_not_first(common::NetlinkSocket& socket, const std::pair<int, Side>& place);
  void pin_again();
  [[nodiscard]] bool pinned() const;
  [[nodiscard]] std::string pin_of(int interface, Side side) const;

  std::string folder_;
  Attach wish_;
  bool fast_;
  sdk::DatapathHost host_;
  std::unique_ptr<Loaded> loaded_;
  std::mutex mutex_;  // of what follows
  Method method_ = Method::kTcx;
  bool attached_ = false;
  int tunnel_ = 0;
  std::string skip_;
  struct Placed {
    Loaded::Program program;
    Attachment attachment;
  };
  std::map<std::pair<int, Side>, Placed> attachments_;
  std::map<std::string, std::string> faults_;
  Mended mended_;
  int stop_ = -1;
  std::thread thread_;
};

}  // namespace egw::ebpf
