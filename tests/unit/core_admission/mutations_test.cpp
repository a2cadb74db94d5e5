// 160,000 mutated manifests, created, written over what is stored, deleted: none is admitted that
// breaks a rule. The rules are checked here by
// other means than admission's: addresses by inet_pton, pools as plain lists of intervals.
#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <set>

#include "unit/core_admission/store.hpp"

namespace egw::core {
namespace {

using nlohmann::json;
using Number = unsigned __int128;

struct Interval {
  bool v6 = false;
  Number first = 0, last = 0;
};

std::optional<Interval> address(const std::string& text) {
  std::array<unsigned char, 16> bytes{};
  const bool v6 = text.find(':') != std::string::npos;
  if (inet_pton(v6 ? AF_INET6 : AF_INET, text.c_str(), bytes.data()) != 1) return std::nullopt;
  Number value = 0;
  for (std::size_t i = 0; i < (v6 ? 16U : 4U); ++i) value = value << 8U | bytes[i];
  return Interval{v6, value, value};
}

std::optional<Interval> prefix(const std::string& text, bool as_pool) {
  const auto slash = text.find('/');
  const auto base = address(text.substr(0, slash));
  if (!base || slash == std::string::npos) return base;
  const std::string digits = text.substr(slash + 1);
  const unsigned bits = base->v6 ? 128 : 32;
  if (digits.empty() || digits.size() > 3 ||
      digits.find_first_not_of("0123456789") != std::string::npos || std::stoul(digits) > bits) {
    return std::nullopt;
  }
  const unsigned host = bits - static_cast<unsigned>(std::stoul(digits));
  const Number mask = host == 128 ? ~Number{0} : (Number{1} << host) - 1;
  Interval out{base->v6, base->first & ~mask, base->first | mask};
  if (as_pool && !out.v6 && host >= 2) {
    ++out.first;
    --out.last;
  }
  return out;
}

std::optional<Interval> pool_entry(const std::string& text) {
  const auto dash = text.find('-');
  if (dash == std::string::npos) return prefix(text, true);
  const auto a = address(text.substr(0, dash));
  const auto b = address(text.substr(dash + 1));
  if (!a || !b || a->v6 != b->v6 || a->first > b->first) return std::nullopt;
  return Interval{a->v6, a->first, b->first};
}

bool touches(const Interval& a, const Interval& b) {
  return a.v6 == b.v6 && a.first <= b.last && b.first <= a.last;
}

Number size_of(std::vector<Interval> list) {
  std::sort(list.begin(), list.end(),
            [](const Interval& a, const Interval& b) { return a.first < b.first; });
  Number count = 0;
  std::optional<Number> reached;
  for (const Interval& i : list) {
    const Number from = reached && i.first <= *reached ? *reached + 1 : i.first;
    if (from <= i.last) count += i.last - from + 1;
    reached = std::max(reached.value_or(0), i.last);
  }
  return count;
}

std::vector<Interval> intervals(const json& list) {
  std::vector<Interval> out;
  for (const json& entry : list.is_array() ? list : json::array()) {
    const auto one = pool_entry(entry.get<std::string>());
    EXPECT_TRUE(one) << entry;
    if (one) out.push_back(*one);
  }
  return out;
}

bool inside(const std::vector<Interval>& pool, const std::string& text) {
  const auto a = address(text);
  return a &&
         std::any_of(pool.begin(), pool.end(), [&](const Interval& i) { return touches(i, *a); });
}

// Blocks of which no address may be given: RFC 6890's that are no unicast source, the cluster's
// own, node addresses, the other gateway's.
constexpr std::array kForbidden{"0.0.0.0/8",    "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
                                "::/127",       "fe80::/10",   "ff00::/8",       "::ffff:0:0/96",
                                "10.96.0.0/16", "10.6.1.21",   "10.244.2.0/24",  "10.9.0.7",
                                "fd00::21"};

// A null reads as absent, as in Kubernetes.
json without_nulls(const json& value) {
  if (!value.is_object()) return value;
  json out = json::object();
  for (const auto& [key, member] : value.items()) {
    if (!member.is_null()) out[key] = without_nulls(member);
  }
  return out;
}

void gateway_keeps_the_rules(const json& doc) {
  const json& spec = doc["spec"];
  const json selector = spec.value("/nodeSelector/selector"_json_pointer, json::object());
  EXPECT_TRUE(!selector.value("matchLabels", json::object()).empty() ||
              !selector.value("matchExpressions", json::array()).empty());
  const json pools = spec.value("ippools", json::object());
  const auto v4 = intervals(pools.value("ipv4", json::array()));
  const auto v6 = intervals(pools.value("ipv6", json::array()));
  for (const Interval& i : v4) EXPECT_FALSE(i.v6);
  for (const Interval& i : v6) EXPECT_TRUE(i.v6);
  for (const auto* side : {&v4, &v6}) {
    for (const Interval& i : *side) {
      for (const char* block : kForbidden) EXPECT_FALSE(touches(i, *prefix(block, false))) << block;
    }
  }
  if (!v4.empty() && !v6.empty()) {
    EXPECT_TRUE(size_of(v4) == size_of(v6));
  }
  for (const auto& [key, side] : {std::pair{"ipv4DefaultEIP", &v4}, {"ipv6DefaultEIP", &v6}}) {
    const std::string text = pools.value(key, "");
    EXPECT_EQ(text.empty(), side->empty()) << key;
    if (!text.empty()) {
      EXPECT_TRUE(inside(*side, text)) << key << " " << text;
    }
  }
  EXPECT_FALSE(spec.value("clusterDefault", false)) << "another one is the default";
}

void policy_keeps_the_rules(const json& doc, const json& gateway) {
  const json& spec = doc["spec"];
  const json applied = spec.value("appliedTo", json::object());
  const bool by_subnet = !applied.value("podSubnet", json::array()).empty();
  const bool by_label = applied.contains("podSelector") && !applied["podSelector"].is_null();
  EXPECT_NE(by_subnet, by_label);
  EXPECT_FALSE(applied.contains("namespaceSelector") && !applied["namespaceSelector"].is_null());
  for (const char* list : {"/destSubnet", "/appliedTo/podSubnet"}) {
    for (const json& entry : spec.value(json::json_pointer(list), json::array())) {
      EXPECT_TRUE(prefix(entry.get<std::string>(), false)) << list << " " << entry;
    }
  }
  const std::string name = spec.value("egressGatewayName", "");
  EXPECT_FALSE(name.empty());
  EXPECT_NE(name, "leaving");
  const json eip = spec.value("egressIP", json::object());
  const std::string v4 = eip.value("ipv4", "");
  const std::string v6 = eip.value("ipv6", "");
  if (eip.value("useNodeIP", false)) {
    EXPECT_TRUE(v4.empty() && v6.empty());
  }
  EXPECT_TRUE(std::set<std::string>({"", "default", "rr"})
                  .contains(eip.value("allocatorPolicy", "default")));
  EXPECT_TRUE(
      std::set<std::string>({"", "Drop", "NodeIP"}).contains(spec.value("failurePolicy", "Drop")));
  if (name != gateway["metadata"]["name"]) return;
  const json& pools = gateway["spec"]["ippools"];
  if (!v4.empty()) {
    EXPECT_TRUE(inside(intervals(pools["ipv4"]), v4)) << v4;
  }
  if (!v6.empty()) {
    EXPECT_TRUE(inside(intervals(pools["ipv6"]), v6)) << v6;
  }
}

class Mutator {
 public:
  json of(const json& base) {
    json doc = base;
    for (auto left = 1 + pick(2); left > 0; --left) mutate(doc["spec"], 4);
    return doc;
  }
  std::size_t pick(std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(g_);
  }

 private:
  json word() {
    static const json kWords = json::parse(R"(["10.6.1.57", "10.6.1.58", "10.6.1.55-10.6.1.58",
        "10.6.1.58-10.6.1.55", "10.6.1.0/24", "10.6.1.5/30", "10.6.1.64/31", "10.6.1.57/32",
        "fd00::57", "fd00::58", "fd00::55-fd00::58", "fd00::/126", "fd00:1::/64", "127.0.0.1",
        "224.0.0.1", "0.0.0.0", "255.255.255.255", "169.254.1.1", "::ffff:10.6.1.57", "010.6.1.57",
        "fe80::1", "ff02::1", "::", "::1", "10.6.1.21", "10.6.1.20-10.6.1.22", "10.9.0.7",
        "10.9.0.0/24", "10.96.0.1", "10.244.2.7", "0.0.0.0/0", "::/0", "10.0.0.0/33", "10.0.0.0/",
        "", "x", "240.0.0.1", "10.6.1.57 ", "10.6.1.57-", "-", "/", true, false, 0, -1, 1e30, null,
        {}, [], "Drop", "NodeIP", "rr", "default", "egw1", "none", "leaving", {"matchLabels": {}},
        {"matchLabels": {"a": "b"}}, ["10.6.1.55"], ["fd00::55"], ["10.244.0.0/16"],
        {"matchExpressions": [{"key": "a", "operator": "Near"}]},
        {"matchExpressions": [{"key": "a", "operator": "Exists"}]}])");
    return kWords[pick(kWords.size())];
  }
  void mutate(json& value, int depth) {
    if (depth > 0 && value.is_object() && !value.empty() && pick(5) != 0) {
      auto it = value.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(pick(value.size())));
      if (pick(12) == 0) {
        value.erase(it);
      } else {
        mutate(it.value(), depth - 1);
      }
    } else if (depth > 0 && value.is_array() && !value.empty() && pick(3) != 0) {
      if (pick(2) == 0) return value.push_back(word());
      mutate(value[pick(value.size())], depth - 1);
    } else if (value.is_object() && pick(2) == 0) {
      static constexpr std::array kKeys{"ipv4",     "ipv6",        "useNodeIP",     "podSubnet",
                                        "priority", "podSelector", "failurePolicy", "destSubnet",
                                        "egressIP", "ippools",     "clusterDefault"};
      value[kKeys[pick(kKeys.size())]] = word();
    } else if (value.is_string() && pick(3) == 0 && !value.get_ref<std::string&>().empty()) {
      auto& text = value.get_ref<std::string&>();
      text[pick(text.size())] = "0123456789.:-/abcf"[pick(18)];
    } else {
      value = word();
    }
  }
  std::mt19937_64 g_{20260101};
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMutants = 20'000;  // each takes twenty times as long
#else
constexpr int kMutants = 100'000;
#endif

// Gateways egw1 (the default), egw2 (policy web has its pair .70/::70) and v4, of one family;
// leaving.
class Mutations : public testing::Test {
 protected:
  Mutations() {
    store.put(node());
    store.put(cluster_info(R"({"status": {"extraCidr": null}})"));
    store.put(gateway());
    store.put(gateway(
        R"({"metadata": {"name": "leaving", "deletionTimestamp": "2024-05-01T12:00:00Z"},
            "spec": {"clusterDefault": false, "ippools": {"ipv4": ["10.9.0.7"], "ipv6": null,
            "ipv4DefaultEIP": "10.9.0.7", "ipv6DefaultEIP": null}}})"));
    served = store.get("EgressGateway", "", "egw1");
  }

  // Asks about `count` mutants of what `base` gives; `keeps` judges those that are admitted.
  template <class Base, class Ask, class Keeps>
  void sweep(int count, const Base& base, const Ask& ask, const Keeps& keeps) {
    for (int i = 0; i < count && !HasFailure(); ++i) {
      const json doc = mutator.of(base(i));
      const AdmitAnswer answer = ask(doc);
      ++(answer.admitted ? admitted : denied);
      if (answer.admitted) {
        keeps(doc);
      } else {
        EXPECT_FALSE(answer.denials.empty()) << doc;
        for (const std::string& denial : answer.denials) {
          EXPECT_NE(denial.find(": "), std::string::npos) << denial;  // path: what is wrong
          EXPECT_EQ(denial.find('\n'), std::string::npos) << denial;
        }
      }
      if (HasFailure()) ADD_FAILURE() << "number " << i << ": " << doc.dump(1);
    }
  }

  Store store;
  json served;
  Mutator mutator;
  int admitted = 0;
  int denied = 0;
  const json egw2 = gateway(R"({"metadata": {"name": "egw2"}, "spec": {"clusterDefault": false,
      "ippools": {"ipv4": ["10.6.1.70", "10.6.1.80-10.6.1.82"], "ipv6": ["fd00::70-fd00::73"],
      "ipv4DefaultEIP": "10.6.1.70", "ipv6DefaultEIP": "fd00::70"}}})");
  const json web = policy(R"({"spec": {"destSubnet": ["1.1.1.0/24", "2001:db8::/32"],
      "egressIP": {"ipv4": "10.6.1.55", "useNodeIP": false, "allocatorPolicy": "default"},
      "priority": 3, "failurePolicy": "Drop"}})");
};

TEST_F(Mutations, NothingThatTheRulesForbidIsCreated) {
  sweep(
      kMutants, [&](int i) { return i % 2 == 0 ? egw2 : web; },
      [&](const json& doc) { return store.create(doc); },
      [&](const json& doc) {
        if (doc["kind"] == "EgressGateway") {
          gateway_keeps_the_rules(without_nulls(store.stored));
        } else {
          policy_keeps_the_rules(without_nulls(store.stored), served);
        }
      });
  EXPECT_GT(admitted, kMutants / 10);
  EXPECT_GT(denied, kMutants / 10);
}

// What an update must leave as it is.
void gateway_keeps_what_is_used(const json& doc, const json& old) {
  const json pools = doc["spec"].value("ippools", json::object());
  const auto list = [](const json& of, const char* key) {
    return intervals(of.value(key, json::array()));
  };
  for (const auto& [key, used] : {std::pair{"ipv4", "10.6.1.70"}, {"ipv6", "fd00::70"}}) {
    const bool had = !list(old["spec"]["ippools"], key).empty();
    if (doc["metadata"]["name"] == "egw2") {
      EXPECT_TRUE(inside(list(pools, key), used)) << used << " is taken from its policy";
    } else if (!had) {
      EXPECT_TRUE(list(pools, key).empty()) << key << " is added";
    }
  }
  const auto is = [&pools](const char* key, const char* text) {
    const auto a = address(pools.value(key, ""));
    return a && a->first == address(text)->first;
  };
  if (doc["metadata"]["name"] == "egw2") {
    EXPECT_EQ(is("ipv4DefaultEIP", "10.6.1.70"), is("ipv6DefaultEIP", "fd00::70"))
        << "the pair in use is torn";
  }
}

void policy_keeps_its_identity(const json& doc, const json& old) {
  const auto eip = [](const json& of) { return of["spec"].value("egressIP", json::object()); };
  EXPECT_EQ(doc["spec"].value("egressGatewayName", ""), old["spec"].value("egressGatewayName", ""));
  EXPECT_EQ(eip(doc).value("useNodeIP", false), eip(old).value("useNodeIP", false));
  const auto allocator = [&](const json& of) {
    const std::string word = eip(of).value("allocatorPolicy", "");
    return word.empty() ? "default" : word;
  };
  EXPECT_EQ(allocator(doc), allocator(old));
  for (const char* key : {"ipv4", "ipv6"}) {
    const auto now = address(eip(doc).value(key, ""));
    const auto before = address(eip(old).value(key, ""));
    ASSERT_EQ(now.has_value(), before.has_value()) << key;
    if (now) {
      EXPECT_TRUE(now->first == before->first) << key;
    }
  }
}

TEST_F(Mutations, NothingThatTheRulesForbidIsWrittenOverWhatIsStored) {
  store.put(patched(egw2, R"({"status": {"nodeList": [{"name": "n1", "status": "Ready", "eips": [
      {"ipv4": "10.6.1.70", "ipv6": "fd00::70", "id": 1,
       "policies": [{"name": "other", "namespace": "shop"}]}]}]}})"));
  store.put(gateway(R"({"metadata": {"name": "v4"}, "spec": {"clusterDefault": false, "ippools": {
      "ipv4": ["10.6.2.1-10.6.2.4"], "ipv4DefaultEIP": "10.6.2.1", "ipv6": null,
      "ipv6DefaultEIP": null}}})"));
  store.put(web);
  store.put(policy(R"({"metadata": {"name": "rr"},
      "spec": {"egressIP": {"allocatorPolicy": "rr"}, "destSubnet": ["1.1.1.1"]}})"));
  store.put(policy(R"({"metadata": {"name": "node"}, "spec": {"egressIP": {"useNodeIP": true}}})"));
  const json bases[] = {store.get("egw", "", "egw2"), store.get("egw", "", "v4"), web,
                        store.get("egp", "shop", "rr"), store.get("egp", "shop", "node")};
  const auto old_of = [&](const json& doc) {
    return *std::find_if(std::begin(bases), std::end(bases), [&](const json& b) {
      return b["metadata"]["name"] == doc["metadata"]["name"];
    });
  };
  sweep(
      kMutants / 2, [&](int i) { return bases[static_cast<std::size_t>(i) % std::size(bases)]; },
      [&](const json& doc) { return store.update(doc); },
      [&](const json& doc) {
        const json now = without_nulls(store.stored);
        if (doc["kind"] == "EgressGateway") {
          gateway_keeps_the_rules(now);
          gateway_keeps_what_is_used(now, old_of(doc));
        } else {
          policy_keeps_the_rules(now, served);
          policy_keeps_its_identity(now, old_of(doc));
        }
      });
  EXPECT_GT(admitted, kMutants * 3 / 100);
  EXPECT_GT(denied, kMutants / 20);
}

// Whatever has been stored can be deleted, but for the one object that must stay.
TEST_F(Mutations, DeletionsAreJudgedByTheKindAlone) {
  store.put(web);
  const json info = cluster_info();
  const json bases[] = {egw2, served, web, info,
                        cluster_info(R"({"metadata": {"name": "peers-1"}})")};
  sweep(
      10'000, [&](int i) { return bases[static_cast<std::size_t>(i) % std::size(bases)]; },
      [&](const json& doc) {
        AdmitAnswer answer = store.remove(doc);
        const bool stays = doc["metadata"]["name"] == "default";
        EXPECT_EQ(answer.admitted, !stays);
        // web uses egw1, which waits for it and says so.
        const bool in_use = doc["metadata"]["name"] == "egw1";
        EXPECT_EQ(answer.warnings.size(), in_use ? 1U : 0U);
        return answer;
      },
      [&](const json&) { EXPECT_TRUE(store.stored.is_null()); });
  EXPECT_EQ(denied, 2'000);
}

}  // namespace
}  // namespace egw::core
