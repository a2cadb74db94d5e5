// HTTP client on libcurl's multi interface: one thread that drives all transfers to one server,
// over one HTTP/2 connection where the server speaks it, or over HTTP/1.1 connections, which are
// kept. Calls are synchronous and may come from any thread; nothing is thrown. Used by api.cpp
// alone, which has one client for streams and another one for requests: libcurl 7.88 may leave an
// answer lying that came in between the data of streams (it was seen to wait there for seconds),
// and of one list of connections it gives a stream one that belongs to a request.
//
// A connection that has died without saying so (a server that was stopped, a network that drops) is
// found by a request that gets no answer: when its deadline, of 750 ms or more, passes and no
// byte has come since it was sent, all transfers end and the next ones begin on new connections.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "stop.hpp"

namespace egw::kube {

struct Server {
  std::string url;       // "https://10.0.0.1:6443", without a slash at the end; may have a path
  std::string ca;        // PEM; empty: the system's
  std::string tls_name;  // the name that the certificate must have; empty: the URL's host
  std::string proxy;     // URL; empty: by the environment, as curl does it
  bool insecure = false;
  // The URL for people: without what stands before an '@' in it, a user's name and password.
  [[nodiscard]] std::string shown() const {
    const std::size_t begin = url.find("://") + 3, end = url.find('/', begin);
    const std::size_t at = url.substr(0, end).rfind('@');
    return at == std::string::npos || at < begin ? url : url.substr(0, begin) + url.substr(at + 1);
  }
};

// Of one request: who we are, and whom we believe.
struct Credentials {
  std::string ca;  // PEM; empty: the Server's
  std::string token;
  std::string certificate, key;  // PEM
  bool operator==(const Credentials&) const = default;
};

struct HttpRequest {
  std::string method = "GET";
  std::string path;  // begins with '/', with the query
  std::string body, content_type;
  std::string accept = "application/json";
  // Of the whole exchange; of a stream: until its header.
  std::chrono::milliseconds deadline{5000};
  std::size_t max_answer = std::size_t{64} << 20;  // bytes; of a stream: of an answer that is none

  // A stream: takes the body of a 2xx answer as it comes, on the client's thread, and answers
  // whether to go on. Must not call the client.
  std::function<bool(std::string_view)> on_data;
  // Of a stream: the server has agreed to it, which may be long before it has anything to say. On
  // the client's thread.
  std::function<void()> on_begin;
  // A stream ends after this time, and when nothing has come for `silence` (read at any time).
  std::chrono::milliseconds longest{0};
  const std::atomic<std::int64_t>* silence_ms = nullptr;
};

struct HttpAnswer {
  int code = 0;       // 0: there is no answer
  std::string error;  // why the exchange did not come to its end; empty: it did
  std::string body;   // not of a stream
  bool sent = false;  // the server may have seen the request
  bool stopped = false;
  bool silent = false;          // a stream on which nothing came for silence_ms
  bool no_credentials = false;  // it was not asked
  std::chrono::milliseconds retry_after{0};
  [[nodiscard]] bool success() const { return error.empty() && code >= 200 && code < 300; }
};

class HttpClient {
 public:
  enum class Speaks : std::uint8_t { kHttp1, kHttp2 };
  HttpClient(Server server, Speaks speaks);
  ~HttpClient();  // precondition: no call is under way
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // stop: ends the call early, see Stop. Not from within on_data.
  [[nodiscard]] HttpAnswer call(const HttpRequest& request, const Credentials& credentials,
                                const Stop* stop);
  void wake();
  // Who is to be told, on this client's thread, when a request that began then has shown that its
  // connection is dead. Before the first call.
  void tell_of_death(std::function<void(std::chrono::steady_clock::time_point)> told);
  // Somebody has found the server dead that he asked then: unless something has come here since,
  // all transfers end and the next ones begin on new connections.
  void doubt(std::chrono::steady_clock::time_point since);

  [[nodiscard]] std::chrono::steady_clock::time_point last_received() const;
  [[nodiscard]] int streams() const { return streams_; }
  [[nodiscard]] const Server& server() const { return server_; }

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Transfer;

  void run();
  void start_waiting();
  void begin(Transfer& transfer);
  [[nodiscard]] bool tells(const Transfer& t, Time::duration taken) const;
  void collect();
  void found_dead(Time since);
  Time check(Time now);  // ends what is over; answers when to look again
  void end(Transfer& transfer, const std::string& error);
  void reset_connection();
  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* ctx);
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* ctx);

  const Server server_;
  const Speaks speaks_;
  std::atomic<bool> multiplexes_;         // as far as is known: the server speaks HTTP/2
  void* multi_ = nullptr;                 // CURLM, the thread's own but for wake()
  std::list<Transfer*> active_;           // the thread's own
  std::function<void(Time)> tell_;        // of a death
  std::atomic<std::int64_t> received_;    // steady clock, ns
  std::atomic<std::int64_t> doubted_{0};  // steady clock, ns; 0: not
  std::atomic<int> streams_{0};

  std::mutex mutex_;  // guards the rest and multi_'s replacement
  std::condition_variable done_;
  std::deque<Transfer*> waiting_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace egw::kube
