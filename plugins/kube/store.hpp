// The state store of the plugin: the host's calls as requests to the Kubernetes API. Reads and
// writes run on the caller's one thread; each subscription is a Reflector with a thread of its own.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "api.hpp"
#include "config.hpp"
#include "egw/sdk/state_store.hpp"
#include "reflector.hpp"
#include "resource.hpp"
#include "term_record.hpp"
#include "webhook.hpp"

namespace egw::kube {

class KubeStore : public sdk::StateStore {
 public:
  KubeStore(std::string_view config_json, sdk::StoreHost host);

  sdk::Outcome<std::uint64_t> subscribe(const sdk::Query& query, sdk::EventSink sink) override;
  void unsubscribe(std::uint64_t subscription) override;
  sdk::Status get(const sdk::ObjectKind& kind, std::string_view ns, std::string_view name,
                  const sdk::ObjectSink& out) override;
  sdk::Status list(const sdk::Query& query, const sdk::ObjectSink& out) override;
  sdk::Status write(const sdk::Write& write, const sdk::ObjectSink& out) override;
  sdk::Status health() override;

 private:
  struct Step;
  sdk::Outcome<nlohmann::json> stored(const Step& step);
  sdk::Status attempt(Step& step, const sdk::ObjectSink& out);
  sdk::Status admit(Step& step, const nlohmann::json& before, const sdk::ObjectSink& out);
  sdk::Outcome<nlohmann::json> send(const Step& step, const char* method, std::string path,
                                    const nlohmann::json& body,
                                    const char* content_type = "application/json");
  sdk::Status create(Step& step, const sdk::ObjectSink& out);
  sdk::Status update(Step& step, const sdk::ObjectSink& out);
  sdk::Status update_status(Step& step, const sdk::ObjectSink& out);
  sdk::Status remove(Step& step, const sdk::ObjectSink& out);
  void bury();

  const StoreConfig config_;
  const sdk::StoreHost host_;
  Api api_;
  TermRecord terms_;
  // Guards the next three: unsubscribe may come from within an event.
  std::mutex mutex_;
  std::uint64_t last_number_ = 0;
  std::map<std::uint64_t, std::unique_ptr<Reflector>> reflectors_;
  std::list<std::unique_ptr<Reflector>> ended_;  // whose threads still come to their end
  std::unique_ptr<Webhook> webhook_;             // of a controller, where it is enabled
};

}  // namespace egw::kube
