// A small cluster for tests of plan(): nodes with agents that do their part, gateways, policies, a
// leader with a clock. No I/O.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "egw/core/plan.hpp"
#include "egw/model/codec.hpp"
#include "support/apply_plan.hpp"

namespace egw::test {

struct Cluster {
  model::World world;
  model::Settings settings;
  core::PlanInput input;
  core::PlanMemory memory;
  bool remembers = false;  // each plan is made with it too; every change must have its revision
  core::Plan last;         // of the last step
  std::vector<core::Notice> notices;  // of all steps
  std::vector<core::Move> moves;
  int created = 0;

  Cluster();

  // ---- objects
  void node(const std::string& name, model::Labels labels = {{"egress", "true"}});
  void nodes(int count);
  model::EgressGateway& gateway(const std::string& name, std::vector<std::string> v4,
                                std::vector<std::string> v6 = {}, std::string default4 = "",
                                std::string default6 = "");
  model::EgressPolicy& policy(const std::string& ns, const std::string& name,
                              const std::string& gateway_name);
  model::EgressPolicy& rr(const std::string& name, const std::string& gateway_name);
  model::EgressPolicy& named(const std::string& name, const std::string& gateway_name,
                             const std::string& v4, const std::string& v6 = "");
  void drop_policy(const std::string& name, const std::string& ns = "ns");
  void delete_gateway(const std::string& name);

  // ---- agents
  model::EgressTunnel& tunnel(const std::string& name) { return world.tunnels.at(name); }
  // One heartbeat that says Ready, with everything up to now realised.
  void beat(const std::string& name);
  void beat_all(const std::vector<std::string>& except = {});

  // ---- leader
  static std::string text_of(const core::Plan& plan);
  core::Plan step();
  // Plans until there is nothing to write; returns how many plans wrote something.
  int settle();
  // Everything created, agents Ready.
  void start();
  void pass(std::int64_t ms);
  // `ms` in which all agents but these go on beating every second; a plan at each.
  void live(std::int64_t ms, const std::vector<std::string>& dead = {});

  // ---- questions
  const model::EgressPolicy::Status& status(const std::string& name,
                                            const std::string& ns = "ns") const;
  std::string reason(const std::string& name, const std::string& ns = "ns") const;
  const model::EipStatus* eip(const std::string& gateway_name, const std::string& address,
                              std::string* owner = nullptr) const;
  std::string owner(const std::string& gateway_name, const std::string& address) const;
  const model::Condition* condition(const std::string& gateway_name, const std::string& type) const;
  const model::EgressClusterInfo::Status& info() const;
  std::string phase(const std::string& name) const;
  int count(const std::string& reason_text) const;
};

// One EIP on n1 that has just been asked to move to n3.
struct Moving : Cluster {
  Moving();
};

}  // namespace egw::test
