/** The maildrop is not there, or its owner may not enter it. Creating it, or correcting its owner, helps. */
export class MaildropMissing extends Error {
  override readonly name = 'MaildropMissing'
  readonly path: string

  constructor(path: string, cause: unknown) {
    super(`no maildrop at ${path}`, { cause })
    this.path = path
  }
}

/** new/ or cur/ is missing or cannot be read. */
export class MaildropUnreadable extends Error {
  override readonly name = 'MaildropUnreadable'
  readonly path: string

  constructor(path: string, cause: unknown) {
    super(`cannot scan maildrop ${path}`, { cause })
    this.path = path
  }
}

/** Another session holds the maildrop, and `lock = "exclusive"`. Trying later helps. */
export class MaildropInUse extends Error {
  override readonly name = 'MaildropInUse'
  readonly path: string

  constructor(path: string) {
    super(`maildrop ${path} is in use`)
    this.path = path
  }
}
