// Where the webhook's certificate comes from: made by egw and shared by its replicas in a Secret,
// or provided in files. Used by webhook.cpp, on its thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api.hpp"
#include "certificate.hpp"
#include "config.hpp"
#include "watched_object.hpp"

namespace egw::kube {

struct Serving {
  KeyPair pair;
  std::string authorities;  // PEM, for the API server; empty: somebody else tells it
  bool only_these = false;  // the API server is to know no others
};

class CertificateSource {
 public:
  virtual ~CertificateSource() = default;
  // What is to be served now. kUnavailable, kDenied or kInvalid with the reason.
  virtual sdk::Outcome<Serving> look(WallTime now) = 0;
};

// config.folder: tls.crt, tls.key, perhaps ca.crt; read each time. It must be for the Service in
// `ns` or one of config.names, and of ca.crt, if that is there.
[[nodiscard]] std::unique_ptr<CertificateSource> provided_certificate(const WebhookConfig& config,
                                                                      const std::string& ns);
// The Secret config.secret in `ns`; renewed there by whoever is first. changed: somebody else has
// written it; called on any thread.
[[nodiscard]] std::unique_ptr<CertificateSource> shared_certificate(
    Api& api, const WebhookConfig& config, const std::string& ns, Stop& stop, const sdk::Host& host,
    std::function<void()> changed);

// The two webhook configurations of a name.
class Authorities {
 public:
  Authorities(Api& api, const std::string& configuration, Stop& stop, const sdk::Host& host,
              const std::function<void()>& changed);
  // Has all webhooks of both know the authorities: only these, or these too. Writes where that is
  // not so.
  sdk::Status tell(const Serving& serving, WallTime now);

 private:
  std::vector<std::unique_ptr<WatchedObject>> configurations_;
};

}  // namespace egw::kube
