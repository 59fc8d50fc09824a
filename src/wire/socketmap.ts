/** A question of Postfix or sendmail: which map, and what to look up (socketmap_table(5)). */
export type SocketmapQuestion = { readonly map: string; readonly key: string }

/** The answers of socketmap_table(5). `temporary` makes the mail system try again later. */
export type SocketmapAnswer =
  | { readonly type: 'ok'; readonly data: string }
  | { readonly type: 'notfound' }
  | { readonly type: 'temporary' | 'permanent'; readonly reason: string }

/** Content of the netstring that asks. */
export const formatSocketmapQuestion = ({ map, key }: SocketmapQuestion): string => `${map} ${key}`

/** Inverse of formatSocketmapQuestion; undefined if there is no space. */
export function parseSocketmapQuestion(content: string): SocketmapQuestion | undefined {
  const space = content.indexOf(' ')
  return space < 1 ? undefined : { map: content.slice(0, space), key: content.slice(space + 1) }
}

/** Content of the netstring that answers. */
export function formatSocketmapAnswer(answer: SocketmapAnswer): string {
  switch (answer.type) {
    case 'ok':
      return `OK ${answer.data}`
    case 'notfound':
      return 'NOTFOUND '
    case 'temporary':
      return `TEMP ${answer.reason}`
    case 'permanent':
      return `PERM ${answer.reason}`
  }
}
