/** The output and the options of a FrontDialogue, which its owner provides. */
import type { PlainScan } from './content.ts'
import type { FrontRules, MailRule } from './transaction.ts'

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
  event(...event: FrontEvent): void
}

/** Habit of a device, by the name of its log event. */
export type FrontHabit =
  | ['auth_refused' | 'early_data_sent' | 'line_ends_repaired', fields: object]
  | ['hello_replaced', fields: { readonly helo: string }]

/** Place of a refused address: its sender or its recipient, as written. */
export type RefusedAddress = { readonly sender?: string; readonly recipient?: string }

/** Why the front ended the session: the `reason` of `front_ended`. */
export type FrontEnd =
  | ('auth_line' | 'discarded' | 'early_data_refused' | 'early_reply' | 'idle' | 'no_reply' | 'server_ended')
  | ('server_reply' | 'stopped' | 'tls_hello' | 'too_many_errors')

/**
 * Log event with its fields. `mail_refused`: a rule refused a command. `front_ended`: the dialogue
 * ended the session because of an error.
 */
export type FrontEvent =
  | FrontHabit
  | ['mail_refused', fields: { readonly reason: MailRule } & RefusedAddress]
  | ['front_ended', fields: { readonly reason: FrontEnd; readonly code?: string }]

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
