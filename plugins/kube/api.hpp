// The API server as the plugins see it: requests with credentials, within a deadline, repeated
// where the server says so or has not seen them. One per plugin instance; any thread.
#pragma once

#include <algorithm>
#include <string>

#include "access.hpp"
#include "answer.hpp"
#include "back_off.hpp"
#include "credentials.hpp"
#include "egw/sdk/plugin.hpp"
#include "http.hpp"
#include "outage.hpp"

namespace egw::kube {

// The rest of a deadline: 10 ms where none is left.
[[nodiscard]] std::chrono::milliseconds left_until(std::chrono::steady_clock::time_point until);

class Api {
 public:
  Api(Access access, const sdk::Host& host);
  ~Api();
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  // One attempt; after 401 a second one, if there are other credentials by now. Those that stay
  // refused are not sent again, by anybody, before a growing pause is over: the answer is 401 then.
  // The deadline counts for all of it, also for getting credentials.
  [[nodiscard]] HttpAnswer once(HttpRequest request, const Stop* stop = nullptr);
  // Attempts until request.deadline: again after 429, 503 with Retry-After, and when the request
  // did not reach the server.
  [[nodiscard]] HttpAnswer call(HttpRequest request, Stop* stop = nullptr);
  // The answer's object.
  [[nodiscard]] sdk::Outcome<nlohmann::json> object(HttpRequest request, const Asked& asked,
                                                    Stop* stop = nullptr);
  // Ends the calls and streams whose stop is requested.
  void wake() {
    requests_.wake();
    streams_.wake();
  }

  [[nodiscard]] const Access& access() const { return access_; }
  // Something has come within the time, and no request has failed since.
  [[nodiscard]] bool heard_within(std::chrono::milliseconds time) const {
    const auto last = std::max(requests_.last_received(), streams_.last_received());
    return !failed_ && std::chrono::steady_clock::now() - last < time;
  }
  // What somebody pauses for who is going to ask again.
  struct Refusal {
    bool by_outage = false;  // the server was not there, or not able to serve
    std::chrono::milliseconds retry_after{0}, least{0};
    std::chrono::steady_clock::time_point attempt;  // when it began
  };
  // The pause: back_off's, shorter for a while after an outage. After an outage itself it ends, not
  // before `least`, when the server serves again, for whomever it was. True when `stop` ended it.
  bool rest(const Refusal& refusal, BackOff& back_off, Stop& stop);
  // ok() when the server answers.
  [[nodiscard]] sdk::Status alive(std::chrono::milliseconds deadline);

 private:
  HttpAnswer once(HttpClient& client, HttpRequest request, const Stop* stop);
  [[nodiscard]] std::chrono::milliseconds longest_hold() const;
  void keep_watch();

  const Access access_;
  const sdk::Host host_;
  CredentialSource credentials_;
  HttpClient streams_;
  HttpClient requests_;              // goes first: it tells the other one
  std::atomic<bool> failed_{false};  // the last request got no answer, or was not let in
  Outage outage_;
  Stop stop_;
  std::thread keeper_;
};

}  // namespace egw::kube
