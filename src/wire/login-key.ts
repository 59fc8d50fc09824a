/**
 * The text by which logins are compared: two logins with the same key are one. Letters of ASCII
 * count without their case,
 * because POP3 servers differ in what else they fold; the dot of the root behind a domain is left out. The function
 * login_key of the database is the same (sql/000010).
 */
export function loginKey(login: string): string {
  const key = login.replace(/[A-Z]+/g, letters => letters.toLowerCase())
  return key.includes('@') ? key.replace(/\.+$/, '') : key
}
