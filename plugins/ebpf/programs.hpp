// What the datapath on nftables asks of BPF programs (common::Programs): the maps' contents from
// the desired state, written by comparison with the kernel or as differences. Called by
// common/nftables/datapath.cpp.
#pragma once

#include <array>
#include <bitset>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/nftables/datapath.hpp"
#include "kernel.hpp"

namespace egw::ebpf {

struct Config {
  common::Numbers numbers;
  std::string pin_path = "/sys/fs/bpf/egw";
  Attach attach = Attach::kAuto;
  bool fast_path = false;
};

// Whether the kernel takes the programs, and how they would be attached. Changes nothing.
[[nodiscard]] sdk::Status probe_programs(const Config& config, sdk::ProbeSink& out);

class BpfPrograms : public common::Programs {
 public:
  BpfPrograms(const Config& config, std::string_view state_dir, sdk::DatapathHost host);

  void load() override { kernel_.load(); }
  void prepare(const common::Tables::Past* before, const sdk::State& state,
               const common::Desired& desired, common::Repairs& repairs,
               const std::optional<Bare>& bare) override;
  void sync(const common::Tables::Past* before, const sdk::State& state,
            const common::Desired& desired, int device, std::uint32_t mtu, common::Repairs& repairs,
            std::vector<common::Nft::ElementFailure>& failures,
            std::vector<common::SourceChange>& changes) override;
  void step(const common::Desired* before, const common::Desired& desired,
            const std::vector<common::SourceChange>& changes,
            std::vector<common::Nft::ElementFailure>& failures) override;
  void add_failures(std::vector<common::ObjectFailure>& out) override;
  sdk::Status health() override;
  void counters(const common::Desired* desired, sdk::CounterSink& out) override;
  void observe(const common::Desired* desired, nlohmann::json& out) override;
  void add_bound(common::Bound& out) override;
  sdk::Status purge() override;

 private:
  void sync_settings(const common::Desired& desired, int device, std::uint32_t mtu);
  void sync_arrays(const common::Tables::Past* before, const common::Desired& desired,
                   common::Repairs& repairs);
  void sync_sources(common::Table t, const common::Tables::Past* before, const sdk::State& state,
                    const common::Desired& desired, common::Repairs& repairs,
                    std::vector<common::Nft::ElementFailure>& failures,
                    std::vector<common::SourceChange>& changes);
  // The same where the kernel holds none.
  void fill_sources(common::Table t, const common::Tables::Past* before, const sdk::State& state,
                    const common::Desired& desired, common::Repairs& repairs,
                    std::vector<common::Nft::ElementFailure>& failures,
                    std::vector<common::SourceChange>& changes);
  // What a map holds now.
  [[nodiscard]] common::Elements held(int map, std::size_t key_size) const;
  // Answers what shall go after endpoints have changed.
  common::Elements sync_prefixes(int map, std::size_t key_size, const common::Elements& want,
                                 const common::Elements& past, common::Repairs& repairs);
  // What gets an id or a class's number that somebody had before is counted from zero.
  void start_counts(const common::Desired* before, const common::Desired& desired);
  void step_egresses(const common::Desired& before, const common::Desired& desired);

  Kernel kernel_;
  struct Counted {
    std::bitset<EGW_IDS> egresses;
    std::array<std::bitset<EGW_IDS>, 2> classes;  // by family
  };
  std::optional<Counted> counted_;  // none: whatever a former process has counted goes on
  bool fresh_ = false;              // during a sync: the maps are new
  // From prepare() to sync(): what shall go after endpoints have changed, by family; of new maps,
  // which no attached program reads, what the endpoints that they were filled with have changed.
  struct Prepared {
    std::array<common::Elements, 2> classes, cluster;
    std::vector<common::Nft::ElementFailure> failures;
    std::vector<common::SourceChange> changes;
  };
  Prepared prepared_;
};

}  // namespace egw::ebpf
