// A datapath on nftables: libnl for device, neighbours, routes and rules; nftables for everything
// that looks at packets. The way of a packet: plugins/netlink/README.md. One instance, one thread
// (the host's), plus the threads of Sweeper and Monitor. Base of the plugins netlink and ebpf.
#pragma once

#include <future>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/conntrack.hpp"
#include "common/flows.hpp"
#include "common/monitor.hpp"
#include "common/rtnl.hpp"
#include "common/shared_layout.hpp"
#include "common/tunnel.hpp"
#include "desired.hpp"
#include "egw/sdk/datapath.hpp"
#include "nft.hpp"
#include "tables.hpp"

namespace egw::common {

// The numbers in a plugin's own configuration. Throws sdk::Failure that names the key.
[[nodiscard]] Numbers parse_numbers(const nlohmann::json& config);

// BPF programs that look endpoints up and direct what enters the tunnel, in place of nftables' maps
// of endpoints and chains at the tunnel device (Ruleset::programs()). An operation comes after the
// tables have been changed; what it throws or answers is the change's failure.
class Programs {
 public:
  virtual ~Programs() = default;
  // Loads what is not loaded, which takes a while and changes no packet's way. On a thread of its
  // own, while the state is taken over. What fails here, prepare() tries once more, and tells.
  virtual void load() = 0;
  // The part of sync() that changes no packet's way: what nobody refers to yet. On a thread of its
  // own, while the tables are written. bare: nothing of ours is in the kernel, so that also what is
  // attached to the interfaces has nothing to do yet; as in sync().
  struct Bare {
    int device = 0;
    std::uint32_t mtu = 0;
  };
  virtual void prepare(const Tables::Past* before, const sdk::State& state, const Desired& desired,
                       Repairs& repairs, const std::optional<Bare>& bare) = 0;
  // After prepare(): compares with the kernel and writes differences; attaches. device:
  // the tunnel's index; 0: there is none. The rest: as in Tables::sync.
  virtual void sync(const Tables::Past* before, const sdk::State& state, const Desired& desired,
                    int device, std::uint32_t mtu, Repairs& repairs,
                    std::vector<Nft::ElementFailure>& failures,
                    std::vector<SourceChange>& changes) = 0;
  // before: nullptr: only endpoints change.
  virtual void step(const Desired* before, const Desired& desired,
                    const std::vector<SourceChange>& changes,
                    std::vector<Nft::ElementFailure>& failures) = 0;
  // Of the last sync(): what failed alone.
  virtual void add_failures(std::vector<ObjectFailure>& out) = 0;
  virtual sdk::Status health() = 0;
  virtual void counters(const Desired* desired, sdk::CounterSink& out) = 0;
  virtual void observe(const Desired* desired, nlohmann::json& out) = 0;
  // For purge, before it: the endpoints that the kernel holds.
  virtual void add_bound(Bound& out) = 0;
  virtual sdk::Status purge() = 0;
};

// Findings of probe() that every datapath on nftables has. `name` as in the file name; egress_hook:
// nothing else directs what enters the tunnel.
[[nodiscard]] sdk::Status probe_nftables(std::string_view name, const Numbers& numbers,
                                         bool egress_hook, const sdk::NodeConfig& node,
                                         sdk::ProbeSink& out);

class NftDatapath : public sdk::Datapath {
 public:
  static constexpr std::uint64_t kCapabilities = EGW_CAP_POST_DNAT;
  static constexpr std::string_view kLayout = kSharedLayout;

  NftDatapath(std::string name, Numbers numbers, sdk::DatapathHost host,
              std::unique_ptr<Programs> programs = nullptr);
  ~NftDatapath() override;

  sdk::Status apply(const sdk::Change& change, sdk::ApplyReport& report) override;
  sdk::Status sysctls(sdk::SysctlSink& out) override;
  sdk::Outcome<std::string> observe() override;
  sdk::Status counters(sdk::CounterSink& out) override;
  sdk::Status health() override;
  sdk::Status forget(const sdk::Address& eip) override;
  sdk::Status purge() override;
  sdk::Status hand_over(const sdk::NodeConfig& node) override;

 private:
  // Another datapath on nftables has written the tables that the kernel holds: one with programs
  // where this one has none, or the other way round. The kernel is asked: a host may have no folder
  // for what datapaths of a layout share, and a folder may tell of a kernel that is gone.
  [[nodiscard]] bool tables_of_another();
  // bare: the kernel holds nothing of ours.
  sdk::Status apply_all(const sdk::Change& change, bool bare, sdk::ApplyReport& report);
  // Of a node that a predecessor has programmed: reads what the kernel holds, beside whatever is
  // done until the first change comes, with which it is compared.
  void read_ahead();
  // What was read; nullptr: nothing, or it could not be read.
  [[nodiscard]] std::unique_ptr<KernelContent> take_read();
  // Beside the caller; waits where the future goes.
  [[nodiscard]] std::future<sdk::Status> load_programs();
  sdk::Status apply_step(const sdk::Change& change, sdk::ApplyReport& report);
  sdk::Status sync_kernel(const sdk::State& state, const Desired& desired, bool bare,
                          Repairs& repairs, std::vector<Nft::ElementFailure>& elements,
                          std::vector<SourceChange>& changes, std::future<sdk::Status>& loading);
  // The device; ok() false leaves what can be done without it to be done.
  sdk::Status program_tunnel(const sdk::State& state, const Desired& desired,
                             sdk::ApplyReport& report, Repairs& repairs);
  void program_routes(const Desired& desired, Repairs& repairs);
  void watch(const sdk::State& state, const Desired& desired);
  void keep_peer_numbers(const Desired& desired);
  // What was programmed is not known any more; waits for connections that are being looked at.
  void forget_programmed();
  // Whether the kernel holds nothing of ours.
  [[nodiscard]] bool untouched();
  sdk::Status remove_all();
  // After the tables have been written, or not: the connections that this makes wrong.
  void settle_flows(const Desired* before, const Desired& after, const sdk::State& state,
                    const std::vector<SourceChange>& changes,
                    const std::vector<Nft::ElementFailure>& refused, bool written);
  void report_failures(const std::vector<ObjectFailure>& objects,
                       const std::vector<Nft::ElementFailure>& elements, sdk::ApplyReport& report);

  std::string name_;
  sdk::DatapathHost host_;
  Numbers numbers_;
  NetlinkSocket route_;
  std::unique_ptr<Nft> nft_;
  Tunnel tunnel_;
  std::unique_ptr<Programs> programs_;
  Tables tables_;
  Unswept unswept_{false};
  Sweeper sweeper_;
  std::unique_ptr<Monitor> monitor_;

  sdk::DatapathState held_;
  std::optional<Desired> desired_;  // as programmed; empty: nothing, or in doubt
  Numbering numbering_;
  PeerNumbers peer_numbers_;
  std::uint32_t mtu_ = 1450;
  int device_ = 0;
  std::future<std::unique_ptr<KernelContent>> ahead_;
  std::set<Route> routes_;  // as programmed
  std::set<Rule> rules_;
  Bound bound_;  // by what a purge has taken away, as long as it is not forgotten
};

}  // namespace egw::common
