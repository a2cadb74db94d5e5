// A whole cluster in one process and in virtual time: real controllers and agents, with real plan
// and compile, over a store, datapaths and announcers in memory. For this folder's tests; what they
// share is compiled once, in cluster.cpp, memory_store.cpp, recording_datapath.cpp.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "egw/runtime/agent.hpp"
#include "egw/runtime/controller.hpp"
#include "memory_store.hpp"
#include "recording_datapath.hpp"
#include "virtual_time.hpp"

namespace egw::test {

using model::Kind;
using nlohmann::json;

// Who holds the office; the first that stands gets it, then the next.
class Office {
 public:
  struct Candidate {
    std::string name;
    host::ElectionEvents events;
  };
  explicit Office(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}

  void stand(const std::string& name, host::ElectionEvents events);
  void resign(const std::string& name);
  // The holder loses the office without having asked for it, and stands again last.
  void depose();

  std::string holder;
  std::uint64_t epoch = 0;

 private:
  void fill();
  boost::asio::any_io_executor executor_;
  std::vector<Candidate> candidates_;
};

class MemoryElection final : public host::LeaderElection {
 public:
  MemoryElection(boost::asio::any_io_executor executor, Office& office, std::string name)
      : executor_(std::move(executor)), office_(office), name_(std::move(name)) {}
  boost::asio::awaitable<Result<void>> campaign(host::ElectionEvents events) override;
  boost::asio::awaitable<void> resign() override;

 private:
  boost::asio::any_io_executor executor_;
  Office& office_;
  std::string name_;
};

[[nodiscard]] model::Settings fast_settings();
[[nodiscard]] json make(const std::string& api, const std::string& kind, const std::string& name,
                        json spec);

// Everybody answers but those whom the test silences.
class QuietPinger final : public runtime::Pinger {
 public:
  boost::asio::awaitable<std::set<model::Address>> ping(std::string device,
                                                        std::vector<model::Address> targets,
                                                        std::int64_t wait_ms) override;
  std::set<model::Address> silent;
  std::vector<model::Address> asked;
  std::string last_device;
};

struct AgentRig {
  AgentRig(VirtualLoop& loop, std::shared_ptr<MemoryContent> content, const std::string& node,
           unsigned number, const std::filesystem::path& folder, runtime::Logger& log,
           const model::Settings& settings, const std::string& identity);
  static boost::asio::awaitable<void> live(AgentRig& rig);
  [[nodiscard]] bool announces(const std::string& eip) const;

  std::string name;
  MemoryStore store;
  RecordingDatapath datapath;
  RecordingAnnouncer announcer;
  QuietPinger pinger;
  runtime::Metrics metrics;
  net::UplinkState uplink;
  std::string uplink_method;
  int programmed_calls = 0;
  int holds = 0;
  std::vector<model::Prefix> held_pods, inside_held;
  bool ended = false;
  std::unique_ptr<runtime::Agent> agent;
};

struct ControllerRig {
  ControllerRig(VirtualLoop& loop, std::shared_ptr<MemoryContent> content, Office& office,
                const std::string& identity, runtime::Logger& log, const model::Settings& settings);
  static boost::asio::awaitable<void> live(ControllerRig& rig);
  MemoryStore store;
  MemoryElection election;
  runtime::Metrics metrics;
  bool ended = false;
  std::unique_ptr<runtime::Controller> controller;
};

class ClusterTest : public testing::Test {
 protected:
  static constexpr const char* kApi = "egressgateway.spidernet.io/v1beta1";
  static constexpr const char* kEip = "10.6.1.55";

  ClusterTest();
  ~ClusterTest() override;

  void add_node(const std::string& name, bool gateway);
  // empty_kernel: as after a reboot; else what a predecessor programmed is still there. One that
  // runs is killed first: its coroutines would outlive it.
  AgentRig& start_agent(const std::string& name, bool empty_kernel = false);
  // As kill -9: no stop, no last word.
  void kill_agent(const std::string& name) { dead.push_back(freeze(name)); }
  ControllerRig& start_controller(const std::string& identity);
  ControllerRig& start_controller(const std::string& identity, Office& election);
  void add_gateway();
  void add_policy(const std::string& name, const std::string& destination = "203.0.113.0/24");
  void add_pod(const std::string& name, const std::string& node, const std::string& ip);
  // One client, two gateways, one policy with a pod, everything settled and Ready.
  void start_cluster();

  [[nodiscard]] json tunnel(const std::string& node) const;
  [[nodiscard]] std::string phase(const std::string& node) const;
  // The node that the gateway's status gives the EIP to.
  [[nodiscard]] std::string owner(const std::string& eip = kEip) const;
  [[nodiscard]] static std::string other(const std::string& gateway_node);
  [[nodiscard]] const json* condition(const std::string& node, const std::string& type);
  [[nodiscard]] bool condition_true(const std::string& node, const std::string& type);
  // Stored events of that reason.
  [[nodiscard]] std::vector<json> events(const std::string& reason) const;
  [[nodiscard]] int heartbeats_of(const std::string& node);

  VirtualLoop loop;
  runtime::Logger log{runtime::LogFormat::kText, runtime::LogLevel::kError};
  std::filesystem::path folder;
  model::Settings settings = fast_settings();
  std::shared_ptr<MemoryContent> content = std::make_shared<MemoryContent>();
  Office office{loop.executor()};
  std::map<std::string, std::unique_ptr<AgentRig>> agents;
  std::map<std::string, std::unique_ptr<ControllerRig>> controllers;
  std::map<std::string, std::string> identities;  // of agents: none unless a test gives one
  std::vector<std::unique_ptr<AgentRig>> dead;

 private:
  std::unique_ptr<AgentRig> freeze(const std::string& name);

  unsigned nodes_ = 0;
  std::map<std::string, unsigned> numbers_;
  json last_;
};

}  // namespace egw::test
