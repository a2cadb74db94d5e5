// EndpointSlices against a naive look at everything, over random histories; and how few slices one
// change writes.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "egw/core/endpoint_slices.hpp"
#include "egw/model/codec.hpp"

namespace egw::test {
namespace {

using core::EndpointSlices;
using model::EgressEndpointSlice;
using model::Key;

model::LabelSelector selector(const std::string& text) {
  return model::LabelSelector::parse_text(text).value();
}

model::Pod pod(const std::string& ns, const std::string& name, model::Labels labels,
               const std::string& ip, const std::string& node = "n1") {
  model::Pod out;
  out.meta.ns = ns;
  out.meta.name = name;
  out.meta.labels = std::move(labels);
  out.node_name = node;
  if (!ip.empty()) out.ips = {model::Address::parse(ip).value()};
  return out;
}

// The leader and its store: slices as they are stored, and how often each was written.
class Rig {
 public:
  explicit Rig(std::size_t most = 3) : most_(most), slices(most) {}

  model::EgressPolicy& policy(const std::string& ns, const std::string& name,
                              const std::string& labels) {
    model::EgressPolicy& p = world.policies[{ns, name}];
    p.meta.ns = ns;
    p.meta.name = name;
    p.meta.uid = "uid-" + std::to_string(++uids_);
    p.meta.revision = ++revision_;
    p.spec.pod_selector = selector(labels);
    return p;
  }
  void touch(model::EgressPolicy& p) { p.meta.revision = ++revision_; }
  void put(const model::Pod& p) {
    pods[p.meta.key()] = p;
    slices.upsert(p);
  }
  void drop(const Key& key) {
    pods.erase(key);
    slices.remove(key);
  }
  // A new leader finds what the former one has written.
  void take_over() {
    slices.~EndpointSlices();
    new (&slices) EndpointSlices(most_);
    slices.follow(world);
    for (const auto& [key, slice] : stored) slices.stored(slice);
    slices.begin_pods();
    for (const auto& [key, p] : pods) slices.upsert(p);
    slices.end_pods();
  }
  // Brings the store in step; how many writes it took.
  int settle() {
    slices.follow(world);
    while (slices.work(2)) {
    }
    int writes = 0;
    while (true) {
      auto step = slices.next();
      if (step.idle) return writes;
      if (!step.job) continue;
      ++writes;
      if (step.job->wanted) {
        step.job->wanted->meta.revision = ++revision_;
        stored[step.job->slice] = *step.job->wanted;
        slices.stored(*step.job->wanted);
      } else {
        stored.erase(step.job->slice);
        slices.not_stored(step.job->slice);
      }
    }
  }
  // By policy: the pods in its slices; each pod once, no slice too large or empty.
  std::map<Key, std::set<Key>> listed() const {
    std::map<Key, std::set<Key>> out;
    for (const auto& [key, slice] : stored) {
      EXPECT_FALSE(slice.endpoints.empty()) << key.to_string();
      EXPECT_LE(slice.endpoints.size(), most_);
      EXPECT_EQ(slice.policy_uid, world.policies.at({key.ns, slice.policy}).meta.uid);
      for (const auto& e : slice.endpoints) {
        EXPECT_TRUE((out[{key.ns, slice.policy}].insert({e.ns, e.pod}).second)) << e.pod;
        const model::Pod& p = pods.at({e.ns, e.pod});
        EXPECT_EQ(e.node, p.node_name);
        EXPECT_EQ(e.ipv4.size() + e.ipv6.size(), p.ips.size());
      }
    }
    return out;
  }
  // Another pod of the node has its (one) address.
  bool robbed(const model::Pod& p) const {
    return std::any_of(pods.begin(), pods.end(), [&](const auto& entry) {
      const model::Pod& q = entry.second;
      const auto rank = [](const model::Pod& r) {
        return std::tuple(r.meta.created_ms, r.meta.deleted_ms == 0, r.meta.ns, r.meta.name);
      };
      return q.node_name == p.node_name && q.ips == p.ips && !q.host_network && !q.finished &&
             rank(q) > rank(p);
    });
  }
  std::map<Key, std::set<Key>> expected() const {
    std::map<Key, std::set<Key>> out;
    for (const auto& [key, p] : world.policies) {
      for (const auto& [pod_key, q] : pods) {
        if (q.host_network || q.finished || q.ips.empty() || q.node_name.empty()) continue;
        if (robbed(q)) continue;
        if (!key.ns.empty() && key.ns != pod_key.ns) continue;
        const auto ns = world.namespaces.find(pod_key.ns);
        if (p.spec.namespace_selector &&
            !p.spec.namespace_selector->matches(model::namespace_labels(
                ns == world.namespaces.end() ? nullptr : &ns->second, pod_key.ns))) {
          continue;
        }
        const bool inside = std::any_of(
            p.spec.pod_subnet.begin(), p.spec.pod_subnet.end(),
            [&](const auto& text) { return model::Prefix::parse(text)->contains(q.ips[0]); });
        if (p.spec.pod_subnet.empty() ? !p.spec.pod_selector->matches(q.meta.labels) : !inside) {
          continue;
        }
        out[key].insert(pod_key);
      }
    }
    return out;
  }

 private:
  std::size_t most_;
  int uids_ = 0;
  std::uint64_t revision_ = 0;

 public:
  model::World world;
  std::map<Key, model::Pod> pods;
  std::map<Key, EgressEndpointSlice> stored;
  EndpointSlices slices;
};

TEST(EndpointSlices, OnePodsChangeIsOneSlices) {
  Rig rig;
  rig.policy("a", "web", "app=web");
  rig.take_over();
  for (int i = 0; i < 10; ++i) {
    rig.put(pod("a", "p" + std::to_string(i), {{"app", "web"}}, "10.0.0." + std::to_string(i + 1)));
  }
  EXPECT_EQ(rig.settle(), 4);
  EXPECT_EQ(rig.settle(), 0);
  rig.drop({"a", "p4"});
  EXPECT_EQ(rig.settle(), 1);
  rig.put(pod("a", "p5", {{"app", "web"}}, "10.0.0.6", "n2"));
  EXPECT_EQ(rig.settle(), 1) << "another node";
  rig.put(pod("a", "new", {{"app", "web"}}, "10.0.0.77"));
  EXPECT_EQ(rig.settle(), 1) << "into the gap";
  EXPECT_EQ(rig.stored.size(), 4U);
  rig.put(pod("a", "more", {{"app", "web"}}, "10.0.0.78"));
  EXPECT_EQ(rig.settle(), 1);
  rig.put(pod("a", "more", {{"app", "web"}, {"x", "y"}}, "10.0.0.78"));
  EXPECT_EQ(rig.settle(), 0) << "a label that no policy asks for";
  EXPECT_EQ(rig.listed(), rig.expected());
}

TEST(EndpointSlices, WhoIsNotSteeredIsNotListed) {
  Rig rig;
  rig.policy("a", "web", "");
  rig.take_over();
  model::Pod host = pod("a", "host", {}, "10.0.0.1");
  host.host_network = true;
  model::Pod done = pod("a", "done", {}, "10.0.0.2");
  done.finished = true;
  for (const auto& p :
       {host, done, pod("a", "waits", {}, ""), pod("a", "unbound", {}, "10.0.0.3", ""),
        pod("a", "nowhere", {}, "10.0.0.6", "No node"), pod("b", "elsewhere", {}, "10.0.0.4"),
        pod("a", "runs", {}, "10.0.0.5")}) {
    rig.put(p);
  }
  rig.settle();
  EXPECT_EQ(rig.listed(), (std::map<Key, std::set<Key>>{{{"a", "web"}, {{"a", "runs"}}}}));
}

// As the kernel has it (core::Compiler): an address is the newest pod's.
TEST(EndpointSlices, AnAddressIsOnePods) {
  Rig rig;
  rig.policy("a", "web", "app=web");
  rig.take_over();
  model::Pod old = pod("a", "old", {{"app", "web"}}, "10.0.0.1");
  old.ips.push_back(model::Address::parse("fd00::1").value());
  rig.put(old);
  rig.put(pod("a", "elsewhere", {{"app", "web"}}, "10.0.0.1", "n2"));
  rig.settle();
  model::Pod next = pod("b", "next", {}, "10.0.0.1");
  next.meta.created_ms = 1000;
  rig.put(next);
  EXPECT_EQ(rig.settle(), 1);
  const auto of_old = [&] {
    for (const auto& [key, slice] : rig.stored) {
      for (const auto& e : slice.endpoints) {
        if (e.pod == "old") return e.ipv4.size() * 10 + e.ipv6.size();
      }
    }
    return std::size_t{0};
  };
  EXPECT_EQ(of_old(), 1U) << "its IPv6 address is its own";
  old.ips.pop_back();
  rig.put(old);
  rig.settle();
  EXPECT_EQ(rig.listed(), (std::map<Key, std::set<Key>>{{{"a", "web"}, {{"a", "elsewhere"}}}}));
  rig.drop({"b", "next"});
  EXPECT_EQ(rig.settle(), 1);
  EXPECT_EQ(of_old(), 10U);
}

TEST(EndpointSlices, ANamespaceThatIsGoneLeavesNothingToTheNextOne) {
  Rig r;
  r.policy("t1", "p1", "app=x");
  for (const char* name : {"default", "t1", "t2"}) r.world.namespaces[name].meta.name = name;
  r.take_over();
  r.put(pod("default", "w0", {{"app", "x"}}, "10.244.1.1"));
  r.put(pod("t1", "w1", {{"app", "x"}}, "10.244.1.2"));
  r.settle();
  r.drop({"t1", "w1"});
  r.settle();
  r.put(pod("t2", "w2", {{"app", "x"}}, "10.244.1.3"));  // may be given the number that "t1" had
  r.settle();
  EXPECT_EQ(r.listed(), r.expected());
  EXPECT_TRUE(r.stored.empty());
}

TEST(EndpointSlices, TakenOverWithoutAWrite) {
  Rig rig;
  rig.policy("a", "web", "app=web");
  rig.policy("", "all", "");
  rig.take_over();
  for (int i = 0; i < 20; ++i) {
    rig.put(pod("a", "p" + std::to_string(i), {{"app", i % 2 == 0 ? "web" : "db"}},
                "10.0.0." + std::to_string(i + 1)));
  }
  EXPECT_GT(rig.settle(), 0);
  rig.drop({"a", "p2"});
  rig.settle();
  rig.take_over();
  EXPECT_EQ(rig.settle(), 0);
  EXPECT_EQ(rig.listed(), rig.expected());
}

// A label with a value of its own for each pod, such as a job's name: nothing stays of those that
// have gone.
TEST(EndpointSlices, SelectionsOfPodsThatHaveGoneAreForgotten) {
  Rig rig;
  rig.policy("a", "jobs", "job");
  rig.take_over();
  for (int i = 0; i < 10'000; ++i) {
    rig.put(pod("a", "p", {{"job", std::to_string(i)}}, "10.0.0.1"));
    rig.slices.work(10);
    rig.drop({"a", "p"});
    rig.slices.work(10);
  }
  EXPECT_LE(rig.slices.remembered(), 1100U);
}

TEST(EndpointSlices, WhatSomebodyChangesIsRepaired) {
  Rig rig;
  rig.policy("a", "web", "");
  rig.take_over();
  rig.put(pod("a", "p", {}, "10.0.0.1"));
  rig.settle();
  ASSERT_EQ(rig.stored.size(), 1U);
  EgressEndpointSlice edited = rig.stored.begin()->second;
  edited.endpoints[0].node = "nowhere";
  edited.meta.revision += 1000;
  rig.slices.stored(edited);
  EXPECT_EQ(rig.settle(), 1);
  rig.slices.not_stored(rig.stored.begin()->first);
  EXPECT_EQ(rig.settle(), 1);
}

TEST(EndpointSlices, PoliciesThatComeAnewOwnTheirSlices) {
  Rig rig;
  rig.policy("a", "web", "");
  rig.take_over();
  rig.put(pod("a", "p", {}, "10.0.0.1"));
  rig.settle();
  rig.policy("a", "web", "");  // another uid: Kubernetes would collect what the old one owned
  EXPECT_EQ(rig.settle(), 1);
  EXPECT_EQ(rig.listed(), rig.expected());
  rig.world.policies.clear();
  EXPECT_EQ(rig.settle(), 1);
  EXPECT_TRUE(rig.stored.empty());
}

TEST(EndpointSlices, SlicesOfNobodyAreDeletedAndOthersLeftAlone) {
  Rig rig;
  rig.policy("a", "web", "");
  EgressEndpointSlice old;  // as the older implementation names them
  old.meta.ns = "a";
  old.meta.name = "web-x7k2p";
  old.meta.labels.emplace(model::kPolicyNameLabel, "web");
  old.policy = "web";
  old.policy_uid = "u";
  EgressEndpointSlice by_hand;
  by_hand.meta.ns = "a";
  by_hand.meta.name = "mine";
  EgressEndpointSlice orphan = old;
  orphan.meta.name = core::slice_name("gone", 1);
  orphan.policy = "gone";
  for (const auto& slice : {old, by_hand, orphan}) rig.stored[slice.meta.key()] = slice;
  rig.take_over();
  EXPECT_EQ(rig.settle(), 2);
  ASSERT_EQ(rig.stored.size(), 1U);
  EXPECT_EQ(rig.stored.begin()->first.name, "mine");
}

TEST(EndpointSlices, NamesOfTwoPoliciesNeverMeet) {
  EXPECT_NE(core::slice_name("a", 11), core::slice_name("a-1", 1));
  const std::string longest(253, 'x');
  EXPECT_NE(core::slice_name(longest, 1), core::slice_name(longest.substr(1) + "y", 1));
  EXPECT_LE(core::slice_name(longest, 4'000'000'000U).size(), 253U);
  EXPECT_EQ(core::slice_name(std::string(229, 'x') + ".y", 1).find(".-"), std::string::npos);
}

RC_GTEST_PROP(EndpointSlicesProperty, SameAsALookAtEverything, ()) {
  Rig rig(static_cast<std::size_t>(*rc::gen::inRange(1, 5)));
  const auto pick = [](int n) { return std::to_string(*rc::gen::inRange(0, n)); };
  rig.take_over();
  const int steps = *rc::gen::inRange(1, 40);
  for (int i = 0; i < steps; ++i) {
    const std::string ns = "ns" + pick(2);
    const std::string name = "p" + pick(5);
    switch (*rc::gen::inRange(0, 9)) {
      case 0:
        rig.policy(*rc::gen::element<std::string>("", ns), name,
                   *rc::gen::element<std::string>("app=a", "app!=a", "", "app in (a,b),tier"));
        break;
      case 1: {
        model::EgressPolicy& p = rig.policy("", "c" + name, "app");
        p.spec.namespace_selector = selector("team=" + pick(2));
        break;
      }
      case 2: {
        model::EgressPolicy& p = rig.policy(ns, "s" + name, "");
        p.spec.pod_selector.reset();
        p.spec.pod_subnet = {"10.0.0." + pick(8) + "/30"};
        break;
      }
      case 3:
        if (!rig.world.policies.empty()) rig.world.policies.erase(rig.world.policies.begin());
        break;
      case 4: {
        auto& space = rig.world.namespaces[ns];
        space.meta.name = ns;
        space.meta.labels["team"] = pick(2);
        break;
      }
      case 5:
        rig.drop({ns, "q" + pick(12)});
        break;
      case 6:
        rig.take_over();
        break;
      default: {
        model::Labels labels{{"app", *rc::gen::element<std::string>("a", "b", "c")}};
        if (*rc::gen::arbitrary<bool>()) labels.emplace("tier", "x");
        model::Pod p = pod(ns, "q" + pick(12), labels, "10.0.0." + pick(16), "n" + pick(2));
        p.finished = *rc::gen::inRange(0, 6) == 0;
        p.meta.created_ms = *rc::gen::inRange(0, 3) * 1000;
        p.meta.deleted_ms = *rc::gen::inRange(0, 4) == 0 ? 5000 : 0;
        rig.put(p);
      }
    }
    if (*rc::gen::inRange(0, 3) == 0) {
      rig.settle();
      RC_ASSERT(rig.listed() == rig.expected());
      RC_ASSERT(rig.settle() == 0);
    }
  }
  rig.settle();
  RC_ASSERT(rig.listed() == rig.expected());
}

TEST(EndpointSlices, AsDocumentsWithOwnerAndLabel) {
  Rig rig;
  const std::string name = std::string(100, 'w');
  rig.policy("a", name, "");
  rig.take_over();
  rig.put(pod("a", "p", {}, "fd00::1"));
  rig.settle();
  const EgressEndpointSlice& slice = rig.stored.begin()->second;
  EXPECT_EQ(slice.meta.labels.at(std::string(model::kPolicyNameLabel)), name.substr(0, 63));
  EXPECT_EQ(slice.meta.annotations.at(std::string(model::kPolicyNameLabel)), name);
  const auto document = model::encode(slice);
  EXPECT_EQ(document["kind"], "EgressEndpointSlice");
  EXPECT_EQ(document["metadata"]["ownerReferences"][0]["kind"], "EgressPolicy");
  EXPECT_EQ(document["metadata"]["ownerReferences"][0]["name"], name);
  EXPECT_EQ(document["endpoints"][0]["ipv6"][0], "fd00::1");
  const auto back = model::decode<EgressEndpointSlice>(document);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->policy, name);
  EXPECT_EQ(back->endpoints, slice.endpoints);
  EXPECT_EQ(model::encode(*back), document);
}

}  // namespace
}  // namespace egw::test
