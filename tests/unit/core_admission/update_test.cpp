// Updates of what is stored: what a change is asked, what it is not, and that every fault of it is
// told with its value.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/core_admission/store.hpp"

namespace egw::core {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class Update : public testing::Test {
 protected:
  Update() { store.put(node()); }
  // Stores a gateway with the patch and says what an update to another patch is answered.
  AdmitAnswer change(const std::string& from, const std::string& to) {
    store.put(gateway(from));
    return store.update(gateway(to));
  }
  // A policy of egw1 that holds an EIP.
  void use(const std::string& name, const std::string& ipv4) {
    json p = policy();
    p["metadata"]["name"] = name;
    p["spec"]["egressIP"]["ipv4"] = ipv4;
    store.put(p);
  }
  Store store;
};

// kubectl's annotation beside a gateway that has no pools at all.
TEST_F(Update, AppliedWithoutPools) {
  json bare = gateway(R"({"spec": {"ippools": null}})");
  bare["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
      R"({"spec": {}})";
  for (const char* spec : {"{}", R"({"ippools": null})", R"({"ippools": {}})"}) {
    store.put(bare);
    json changed = bare;
    changed["spec"].merge_patch(json::parse(spec));
    changed["spec"]["clusterDefault"] = false;
    AdmitAnswer answer;
    ASSERT_NO_THROW(answer = store.update(changed)) << spec;
    EXPECT_TRUE(answer.admitted) << testing::PrintToString(answer.denials);
  }
}

TEST_F(Update, EveryUsedAddressThatIsTakenOutIsTold) {
  use("a", "10.6.1.55");
  use("b", "10.6.1.56");
  use("c", "10.6.1.56");
  const auto v4 = R"({"spec": {"ippools": {"ipv6": null, "ipv6DefaultEIP": null}}})";
  const auto moved = R"({"spec": {"ippools": {"ipv4": ["10.6.1.57"],
      "ipv4DefaultEIP": "10.6.1.57", "ipv6": null, "ipv6DefaultEIP": null}}})";
  EXPECT_THAT(change(v4, moved).denials,
              ElementsAre(AllOf(HasSubstr("spec.ippools.ipv4: 10.6.1.55 is used by policy shop/a;"),
                                Not(HasSubstr("default EIP"))),
                          AllOf(HasSubstr("spec.ippools.ipv4: 10.6.1.56 is used by policy shop/b"),
                                HasSubstr("is the gateway's default EIP"))));
}

TEST_F(Update, ADefaultIsKnownHoweverItIsSpelt) {
  json p = policy();
  p["spec"]["egressIP"]["ipv6"] = "fd00::55";
  store.put(p);
  const auto answer = change(R"({"spec": {"ippools": {"ipv6DefaultEIP": "FD00:0::55"}}})",
                             R"({"spec": {"ippools": {"ipv6": ["fd00::56", "fd00::57"],
                                 "ipv6DefaultEIP": "fd00::56"}}})");
  EXPECT_THAT(answer.denials,
              ElementsAre(AllOf(HasSubstr("spec.ippools.ipv6: fd00::55 is used by policy shop/web"),
                                HasSubstr("is the gateway's default EIP"))));
}

// The default of the one family has left; that of the other goes with its pair, or stays.
TEST_F(Update, AMovedDefaultIsToldAsWhatItIs) {
  const auto first = R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.55"}}})";
  auto answer = change(first, R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.6.1.57"],
      "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})");
  EXPECT_THAT(answer.warnings,
              ElementsAre("spec.ippools.ipv4DefaultEIP: 10.6.1.55 has left the pool; 10.6.1.56 is "
                          "the default now"));
  answer = change(R"({"spec": {"ippools": {"ipv6DefaultEIP": "fd00::56"}}})",
                  R"({"spec": {"ippools": {"ipv4": ["10.6.1.55", "10.6.1.57"],
      "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})");
  EXPECT_THAT(answer.warnings,
              ElementsAre(HasSubstr("10.6.1.56 has left the pool; 10.6.1.55 is the default now"),
                          HasSubstr("spec.ippools.ipv6DefaultEIP: fd00::55 is the default now "
                                    "instead of fd00::56: the other family's default")));
}

TEST_F(Update, OneDefaultOfAPairAlone) {
  const auto answer = change("", R"({"spec": {"ippools": {"ipv4DefaultEIP": "10.6.1.55",
      "ipv6DefaultEIP": null}}})");
  EXPECT_TRUE(answer.admitted) << testing::PrintToString(answer.denials);
  EXPECT_THAT(answer.warnings,
              ElementsAre("spec.ippools.ipv6DefaultEIP: not given: fd00::55 stays the default, "
                          "and is the pair of 10.6.1.55 now"));
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6DefaultEIP"], "fd00::55");
  EXPECT_THAT(change("", R"({"spec": {"clusterDefault": false, "ippools": {
      "ipv6DefaultEIP": null}}})")
                  .warnings,
              IsEmpty());
}

TEST_F(Update, OneDefaultWithoutTheOtherIsToldBesideAnotherFault) {
  EXPECT_THAT(store
                  .create(gateway(R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.6.1.555"],
      "ipv6DefaultEIP": null}}})"))
                  .denials,
              ElementsAre(HasSubstr("spec.ippools.ipv4[1]: \"10.6.1.555\""),
                          HasSubstr("spec.ippools.ipv6DefaultEIP: empty, while the other")));
}

// A gateway that was there before its family was switched off can be changed all the same.
TEST_F(Update, AFamilyThatIsSwitchedOff) {
  store.settings.enable_ipv6 = false;
  EXPECT_THAT(change("", R"({"spec": {"clusterDefault": false}})").denials, IsEmpty());
  EXPECT_THAT(
      change("", R"({"spec": {"ippools": {"ipv4": ["10.6.1.56"], "ipv6": ["fd00::55"]}}})").denials,
      IsEmpty());
  EXPECT_THAT(change("", R"({"spec": {"ippools": {"ipv4": ["10.6.1.56", "10.6.1.57"],
      "ipv6": ["fd00::55", "fd00::57"]}}})")
                  .denials,
              ElementsAre("spec.ippools.ipv6: fd00::55, fd00::57: IPv6 is switched off "
                          "(feature.enableIPv6); switch it on or leave this out"));
}

// Nothing can come into the pool of a family that is off, so the other one's may grow and shrink
// alone; when both are on again, who changes the pools makes them equal.
TEST_F(Update, ThePoolOfTheFamilyThatIsOn) {
  const auto grown = R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.57"]}}})";
  const auto shrunk = R"({"spec": {"ippools": {"ipv4": ["10.6.1.56"]}}})";
  const auto both = R"({"spec": {"ippools": {"ipv4": ["10.6.1.55-10.6.1.57"],
      "ipv6": ["fd00::55-fd00::57"]}}})";
  EXPECT_THAT(change("", grown).denials, ElementsAre(HasSubstr("3 IPv4 and 2 IPv6 addresses")));
  store.settings.enable_ipv6 = false;
  EXPECT_THAT(change("", grown).denials, IsEmpty());
  EXPECT_THAT(change("", shrunk).denials, IsEmpty());
  EXPECT_THAT(change(grown, both).denials, ElementsAre(HasSubstr("IPv6 is switched off")));
  store.settings.enable_ipv6 = true;
  json labelled = gateway(grown);
  labelled["spec"]["clusterDefault"] = false;
  store.put(gateway(grown));
  EXPECT_THAT(store.update(labelled).denials, IsEmpty());
  EXPECT_THAT(change(grown, shrunk).denials, ElementsAre(HasSubstr("1 IPv4 and 2 IPv6")));
  EXPECT_THAT(change(grown, both).denials, IsEmpty());

  store.settings.enable_ipv4 = false;
  const auto grown6 = R"({"spec": {"ippools": {"ipv6": ["fd00::55-fd00::58"]}}})";
  EXPECT_THAT(change("", grown6).denials, IsEmpty());
  EXPECT_THAT(change("", grown).denials,
              ElementsAre(HasSubstr("spec.ippools.ipv4: 10.6.1.55-10.6.1.57: IPv4 is switched "
                                    "off (feature.enableIPv4)")));
}

TEST_F(Update, AFamilyThatIsAddedIsToldWithItsAddresses) {
  EXPECT_THAT(
      change(R"({"spec": {"ippools": {"ipv6": null, "ipv6DefaultEIP": null}}})", "").denials,
      ElementsAre(HasSubstr("spec.ippools.ipv6: fd00::55, fd00::56: the stored gateway has "
                            "no IPv6 addresses")));
}

TEST_F(Update, NewDestinationsWithoutEffectAreTold) {
  store.put(gateway(R"({"spec": {"ippools": {"ipv6": null, "ipv6DefaultEIP": null}}})"));
  store.put(policy(R"({"spec": {"destSubnet": ["10.9.0.0/16"]}})"));
  EXPECT_THAT(
      store.update(policy(R"({"spec": {"destSubnet": ["10.9.0.0/16", "fd09::/64"]}})")).warnings,
      ElementsAre(HasSubstr("spec.destSubnet[1]: fd09::/64 has no effect: EgressGateway "
                            "egw1 has no IPv6 addresses")));
  EXPECT_THAT(
      store.update(policy(R"({"spec": {"destSubnet": ["10.9.0.0/16"], "priority": 7}})")).warnings,
      IsEmpty());
}

TEST_F(Update, AllFaultsOfAnAddressBesideUseNodeIp) {
  store.put(gateway());
  EXPECT_THAT(store
                  .create(policy(R"({"spec": {"egressIP": {"useNodeIP": true,
      "ipv4": "10.6.1.555", "ipv6": "fd00::55", "allocatorPolicy": "default"}}})"))
                  .denials,
              ElementsAre(HasSubstr("useNodeIP: true with 10.6.1.555 and fd00::55; want"),
                          HasSubstr("spec.egressIP.ipv4: \"10.6.1.555\" is not an IP address")));
}

TEST_F(Update, EverySayingIsOneLine) {
  const auto answer = store.create(
      gateway(R"({"spec": {"a\nError: b\u007f": 1, "ippools": {"ipv4": ["x\nError: y"]}}})"));
  EXPECT_THAT(answer.denials, Contains(HasSubstr("a?Error: b?: unknown field")));
  for (const auto& denial : answer.denials) EXPECT_EQ(denial.find('\n'), std::string::npos);
}

TEST_F(Update, ARangeThatIsNoneIsToldWhole) {
  const auto answer =
      store.create(gateway(R"({"spec": {"ippools": {"ipv4": ["10.6.1.55", "10.69.0.1-"]}}})"));
  EXPECT_THAT(answer.denials,
              ElementsAre(HasSubstr("spec.ippools.ipv4[1]: \"10.69.0.1-\" is not a range")));
}

// Beside an unchanged spec: what is new is told, what is stored already is not.
TEST_F(Update, UnknownFieldsOfTheMetadata) {
  json p = policy();
  store.put(p);
  p["metadata"]["lables"] = {{"a", "b"}};
  EXPECT_THAT(store.update(p).denials,
              ElementsAre("metadata.lables: unknown field; did you mean metadata.labels?"));
  store.put(p);
  p["metadata"]["labels"] = {{"a", "b"}};
  EXPECT_THAT(store.update(p).denials, IsEmpty());
}

}  // namespace
}  // namespace egw::core
