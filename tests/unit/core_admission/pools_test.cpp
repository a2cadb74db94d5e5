// Pools of an EgressGateway as they are written, and as they are stored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/core_admission/store.hpp"

namespace egw::core {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

class Pools : public testing::Test {
 protected:
  Pools() { store.put(node()); }
  Store store;
};

// The Go implementation's own example, and what is read of it.
TEST_F(Pools, WhatIsEmptyIsNotThere) {
  const std::string patch = R"({"spec": {"ippools": {
      "ipv4": ["10.6.1.55", "", "10.6.1.60-10.6.1.65", "10.6.1.70/28"], "ipv6": [""],
      "ipv4DefaultEIP": "", "ipv6DefaultEIP": ""}}})";
  for (const bool v6 : {true, false}) {
    store.settings.enable_ipv6 = v6;
    const AdmitAnswer answer = store.create(gateway(patch));
    EXPECT_TRUE(answer.admitted) << testing::PrintToString(answer.denials);
    EXPECT_EQ(store.stored["spec"]["ippools"],
              json::parse(R"({"ipv4": ["10.6.1.55", "10.6.1.60-10.6.1.65", "10.6.1.70/28"],
                  "ipv6": [], "ipv4DefaultEIP": "10.6.1.55"})"));
  }
  store.put(store.stored);
  const json before = store.stored;
  EXPECT_TRUE(store.update(gateway(patch)).admitted);
  EXPECT_EQ(store.stored["spec"], before["spec"]);
  const AdmitAnswer other = store.create(gateway(R"({"spec": {"ippools": {"ipv4": ["", "x"],
      "ipv6": ["", "fd00::55"], "ipv4DefaultEIP": null, "ipv6DefaultEIP": null}}})"));
  EXPECT_THAT(other.denials,
              testing::UnorderedElementsAre(HasSubstr("ipv4[1]: \"x\" is not an IP address"),
                                            HasSubstr("ipv6: fd00::55: IPv6 is switched off")));
}

// IPv6 has many spellings; what is stored has one.
TEST_F(Pools, AddressesAreStoredInOneSpelling) {
  const std::string patch = R"({"spec": {"ippools": {"ipv4": null, "ipv4DefaultEIP": null,
      "ipv6": ["FD00:0:0::1", "fd00::0005-FD00::7", "FD00:1::00/126"],
      "ipv6DefaultEIP": "FD00::0001"}}})";
  ASSERT_TRUE(store.create_and_put(gateway(patch)).admitted);
  const json wanted = json::parse(R"({"ipv6": ["fd00::1", "fd00::5-fd00::7", "fd00:1::/126"],
      "ipv6DefaultEIP": "fd00::1"})");
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6"], wanted["ipv6"]);
  EXPECT_EQ(store.stored["spec"]["ippools"]["ipv6DefaultEIP"], wanted["ipv6DefaultEIP"]);
  const json before = store.stored;
  EXPECT_TRUE(store.update(gateway(patch)).admitted);
  EXPECT_EQ(store.stored["spec"], before["spec"]);
}

TEST_F(Pools, SentencesThatHelp) {
  const auto denials = [this](const char* patch) { return store.create(gateway(patch)).denials; };
  EXPECT_THAT(denials(R"({"spec": {"ippools": {"ipv4": ["10.1.1.1"], "ipv4DefaultEIP": null,
                  "ipv6": null, "ipv6DefaultEIP": "fd00::1"}}})"),
              ElementsAre(HasSubstr("ipv6DefaultEIP: fd00::1 is not in spec.ippools.ipv6")));
  for (const char* entry : {"10.6.1.1 - 10.6.1.3", "10.6.1.1 ", "10.6.1.0 /24"}) {
    const json patch{{"spec",
                      {{"ippools",
                        {{"ipv4", {entry}},
                         {"ipv6", nullptr},
                         {"ipv4DefaultEIP", nullptr},
                         {"ipv6DefaultEIP", nullptr}}}}}};
    EXPECT_THAT(denials(patch.dump().c_str()),
                ElementsAre(HasSubstr("there is a space in it: take it out")))
        << entry;
  }
  const json values(std::vector<std::string>(20000, "v"));
  json patch = json::parse(R"({"spec": {"nodeSelector": {"selector": {"matchExpressions":
      [{"key": "a", "operator": "In"}]}}}})");
  patch["spec"]["nodeSelector"]["selector"]["matchExpressions"][0]["values"] = values;
  EXPECT_THAT(denials(patch.dump().c_str()),
              ElementsAre(HasSubstr("spec.nodeSelector.selector.matchExpressions[0].values: 20000 "
                                    "entries; want at most 10000")));
}

}  // namespace
}  // namespace egw::core
