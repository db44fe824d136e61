// What the tests share: a client of the server at TREADLE_URL, and both transports.

import { Client } from "@langchain/langgraph-sdk";
import WebSocket from "ws";

export const url = process.env.TREADLE_URL;
export const HI = { messages: [{ role: "user", content: "hi" }] };
export const TRANSPORTS = ["sse", "websocket"];
export const client = new Client({ apiUrl: url });

export const webSocketFactory = (address) => new WebSocket(address);

export function open(assistantId, transport = "sse", threadId = crypto.randomUUID()) {
  return client.threads.stream(threadId, { assistantId, transport, webSocketFactory });
}

export async function until(condition, what) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not in 20 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
