// The admission webhook of a controller: keeps a certificate, tells the API server whom to trust,
// and answers its AdmissionReviews with the host's admission. Owned by store.cpp; every replica has
// one, leader or not.
//
// A thread looks after the certificate every 10 s, and when somebody has changed what it keeps in
// the API server; what it cannot do it tries again each second.
// Once it serves, an API server that cannot be reached does not end it: only a certificate that has
// run out does.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "api.hpp"
#include "back_off.hpp"
#include "certificate_source.hpp"
#include "config.hpp"
#include "egw/sdk/state_store.hpp"
#include "read_cache.hpp"
#include "webhook_server.hpp"

namespace egw::kube {

class Webhook {
 public:
  // ns: of the Service and of the Secret.
  Webhook(Api& api, WebhookConfig config, std::string ns, sdk::StoreHost host);
  ~Webhook();
  Webhook(const Webhook&) = delete;
  Webhook& operator=(const Webhook&) = delete;

  // ok() when it serves with a certificate that the API server has been told to trust. Waits a
  // moment for the first attempt.
  [[nodiscard]] sdk::Status health();

 private:
  void run();
  bool rest();
  sdk::Status step(WallTime now);
  void tell(const sdk::Status& now, bool serves);
  void look_again();
  WebhookResponse answer(const WebhookRequest& request);

  Api& api_;
  const WebhookConfig config_;
  const sdk::StoreHost host_;
  Stop stop_;
  std::atomic<bool> changed_{false};  // since the last look began
  const std::unique_ptr<CertificateSource> source_;
  Authorities authorities_;
  ReadCache cache_;
  // The thread's:
  BackOff pauses_;  // at least, between looks at what has changed
  std::unique_ptr<WebhookServer> server_;
  std::string served_;  // certificate and key
  bool troubled_ = false;
  std::set<std::string> told_;  // what was said of the trouble

  std::mutex mutex_;  // guards the next three
  std::condition_variable tried_;
  sdk::Status status_;
  WallTime good_until_{};
  bool tried_once_ = false;
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace egw::kube
