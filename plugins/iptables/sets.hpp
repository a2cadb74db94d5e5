// Our sets of one node: what they shall hold, and the kernel made to agree: by reading (full) or
// from what was written last (a step). A change has two halves, so that nothing refers to what is
// not there: first what is new, then, after rules and pods have turned to it, what is old goes.
// Called by datapath.cpp.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "common/plan.hpp"
#include "common/rtnl.hpp"
#include "groups.hpp"
#include "ipset.hpp"

namespace egw::iptables {

struct SetContent {
  SetKind kind;
  SetElements elements;
};
// By name. The sets of pods are held apart: they are big, and change alone.
using SetContents = std::map<std::string, SetContent>;

// What an endpoint's packets are given.
struct PodMarks {
  MarkChange first;  // set "pods"
  MarkChange rest;   // set "rest": its class has prefixes, and this for all others
  bool has_first = false, has_rest = false;
  std::uint32_t class_number = 0;  // of its class, if that has prefixes
};

// Of the sets "pods" and "rest" of one family: what is put there and what goes.
struct PodChange {
  SetElements pods, rest, no_pods, no_rest;
};

struct SetFailure {
  std::string set;
  sdk::Prefix element;
  int error = 0;
};

class SetPlan {
 public:
  // Of everything but pods. classes that get no number are reported and dropped.
  SetPlan(const common::Plan& plan, std::array<Groups, 2>& groups,
          std::vector<common::ObjectFailure>& failures);

  [[nodiscard]] const SetContents& contents() const { return contents_; }
  // Egress IPs that this node may serve: all that depends on egresses.
  void set_eips(const common::Plan& plan);
  // Of a class's endpoints in one family, by the name that Plan::target() gives.
  [[nodiscard]] PodMarks marks_of(Table t, const std::string& target) const;
  // Of an endpoint whose class the rules do not know.
  [[nodiscard]] PodMarks dropped() const;
  [[nodiscard]] const ClassGroups& classes(Table t) const {
    return classes_[static_cast<std::size_t>(t)];
  }

 private:
  void add_classes(const common::Plan& plan, Table t, Groups& groups,
                   std::vector<common::ObjectFailure>& failures);
  [[nodiscard]] MarkChange action(std::uint32_t number) const;

  Marks marks_;
  SetContents contents_;
  std::array<std::map<std::string, PodMarks>, 2> targets_;
  std::array<ClassGroups, 2> classes_;
};

// What differs between the sets of EIPs of two plans, of one family.
struct EipChange {
  SetElements come, gone;
};
[[nodiscard]] EipChange eip_change(Table t, const common::Plan& before, const common::Plan& after);

// The classes of a plan, and those of the rules so far that pods still have by their elements:
// until these get others, their packets must find what was. held: those elements, and the groups'
// sets.
[[nodiscard]] ClassGroups with_former(Table t, const ClassGroups& planned, const ClassGroups& ruled,
                                      const SetContents& held, const Marks& marks);

[[nodiscard]] std::vector<sdk::Prefix> prefixes_of(const common::AddressRanges& ranges);

class Sets {
 public:
  explicit Sets(Ipset& ipset) : ipset_(ipset) {}

  // Reads what the kernel holds into what counts as written; differences from what we wrote count
  // as repaired. Before the first half of a full change.
  void read(common::Repairs& repairs);
  [[nodiscard]] const SetContents& held() const { return held_; }

  // Throws sdk::Failure when a set cannot be made.
  void put(const SetContents& wanted, std::vector<SetFailure>& failures);
  void put_pods(const std::string& name, const SetKind& kind, const SetElements& put,
                const SetElements& remove, std::vector<SetFailure>& failures);
  void make_pods(const std::string& name, const SetKind& kind, std::size_t size);
  // The change that makes the sets of pods hold exactly this.
  [[nodiscard]] PodChange pod_change(Table t, const SetElements& pods,
                                     const SetElements& rest) const;
  // A pod is at no moment left alone that neither its former class nor its new one leaves alone.
  void change_pods(Table t, PodChange change, std::vector<SetFailure>& failures);
  // keep: names that stay besides `wanted`.
  void take(const SetContents& wanted, const std::vector<std::string>& keep);
  // All that are ours.
  sdk::Status purge();
  [[nodiscard]] std::map<std::string, std::size_t> counts() const;

 private:
  void make(const std::string& name, const SetContent& wanted, std::size_t size);
  void replace(const std::string& name, const SetContent& wanted,
               std::vector<SetFailure>& failures);

  Ipset& ipset_;
  SetContents held_;
};

}  // namespace egw::iptables
