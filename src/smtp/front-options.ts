/** The output and the options of a FrontDialogue, which its owner provides. */
import type { PlainScan } from './content.ts'
import type { FrontRules } from './transaction.ts'

/** Actions of a dialogue, called in order. The dialogue may change octets when a call returns. */
export interface FrontOutput {
  toServer(octets: Uint8Array): void
  toClient(octets: Uint8Array): void
  /** Ends the output to the server. Its replies are still read. */
  endServer(): void
  /** Closes the server's side immediately. */
  dropServer(): void
  /** Last call: sends all octets written to the client, then closes both sides. */
  close(): void
  /**
   * Called when the dialogue begins to discard content. The owner limits the time: it calls
   * `endSession` if the end of the message does not come.
   */
  discarding(): void
  /** Called before MAIL is checked. The owner renews the rules, then calls `rulesRenewed` once. */
  renewRules(): void
  /** Called at each refusal and at the end by a fault, and once a session for each other event. */
  event(name: FrontEvent, fields: Readonly<Record<string, string>>): void
}

/**
 * Event for the log. `refused`: a rule refused a command. `fault`: the dialogue ended the session
 * because of an error.
 */
export type FrontEvent = 'refused' | 'fault' | 'early_data' | 'bare_end' | 'auth_unoffered' | 'hello_replaced'

export type FrontOptions = {
  readonly rules: FrontRules
  readonly output: FrontOutput
  /** Replaces an invalid name of the client: `[192.0.2.7]`, `[IPv6:2001:db8::7]`. */
  readonly helloName: string
  /** Called at the start of each message, after its MAIL. */
  readonly lineEndings: () => 'strict' | 'repair'
  readonly auth: 'pass' | 'hide'
  /** Advice in the reply that refuses wrong line ends. */
  readonly lineEndingAdvice: () => string
  /** Finds plain octets in content with strict line ends. Default: octets are read one by one. */
  readonly scan?: PlainScan
}
