// Certificates that somebody provides, and an API server that is told of authorities.
#include "certificate_source.hpp"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "hostile_server.hpp"
#include "hostile_store.hpp"

namespace egw::kube::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Exchange = HostileServer::Exchange;

const WallTime kNow = std::chrono::system_clock::from_time_t(1'800'000'000);

Material made_for(const std::vector<std::string>& names) {
  Material out;
  renew(out, names, kNow);
  return out;
}

// A folder with these files, for as long as this lives.
class Folder {
 public:
  Folder(const KeyPair& pair, const std::string& authorities) {
    std::string name = "/tmp/egw-provided-XXXXXX";
    path_ = ::mkdtemp(name.data());
    std::ofstream(path_ / "tls.crt") << pair.certificate;
    std::ofstream(path_ / "tls.key") << pair.key;
    if (!authorities.empty()) std::ofstream(path_ / "ca.crt") << authorities;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// What is said of them by a controller in namespace egw; empty: they are served.
std::string said_of(const KeyPair& pair, const std::string& authorities,
                    const std::vector<std::string>& names = {}) {
  const Folder folder(pair, authorities);
  WebhookConfig config;
  config.folder = folder.path();
  config.names = names;
  return provided_certificate(config, "egw")->look(kNow).status().text();
}

TEST(KubeProvidedCertificate, IsForTheServiceOrOneOfTheNames) {
  const Material ours = made_for({"egw-webhook.egw.svc"});
  EXPECT_EQ(said_of(ours.serving, ours.authorities), "");
  EXPECT_EQ(said_of(ours.serving, ""), "");
  const Material other = made_for({"egw-webhook.other.svc", "10.0.0.7"});
  for (const std::string& authorities : {other.authorities, std::string()}) {
    EXPECT_THAT(said_of(other.serving, authorities),
                HasSubstr("it is not for egw-webhook.egw.svc"));
    EXPECT_EQ(said_of(other.serving, authorities, {"egw.test", "10.0.0.7"}), "");
  }
  EXPECT_EQ(said_of(made_for({"*.egw.svc"}).serving, ""), "");
}

TEST(KubeProvidedCertificate, IsSignedByTheAuthorityBesideIt) {
  const Material ours = made_for({"egw-webhook.egw.svc"});
  const Material other = made_for({"egw-webhook.egw.svc"});
  EXPECT_THAT(said_of(ours.serving, other.authorities), HasSubstr("ca.crt did not sign it"));
  EXPECT_EQ(said_of(ours.serving, other.authorities + ours.authorities), "");
  // Each in the bundle is trusted by itself, as Go does it.
  EXPECT_EQ(said_of(ours.serving, ours.serving.certificate), "");
}

// What a configuration without anything to ask has the teller say.
std::string told(const std::string& configuration) {
  HostileServer server([&configuration](Exchange& e) { return e.send(ok(configuration)); });
  const Kubeconfig file(server.url());
  store_kit::TestHost host;
  Api api(read_kubeconfig(file.path(), ""), host.services());
  Stop stop;
  const Material material = made_for({"egw-webhook.egw.svc"});
  const Serving serving{material.serving, material.authorities, true};
  return Authorities(api, "egw-webhook", stop, sdk::Host(), [] {}).tell(serving, kNow).text();
}

TEST(KubeTellAuthorities, AConfigurationThatAsksNobodyIsNotTold) {
  EXPECT_EQ(told(R"({"webhooks":[{"clientConfig":{}}]})"), "");
  for (const char* empty : {"{}", R"({"webhooks":[]})", R"({"webhooks":null})"}) {
    EXPECT_THAT(told(empty), HasSubstr("egw-webhook: it has no webhooks")) << empty;
  }
}

}  // namespace
}  // namespace egw::kube::test
